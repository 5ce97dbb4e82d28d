//! Charting library of pages with scripts: plotly.js from the `plotly` crate.
//!
//! The crate's archive contains the minified library (3.0.1, MIT), so Cargo fetches it by hash and
//! builds need no other download. The crate's MathJax is omitted, because no chart has formulas.

use plotly::Plot;

/// License text that must accompany every copy.
const LICENSE: &str = include_str!("plotly_license.txt");

/// Returns the library as a script element, with its license.
pub fn script() -> String {
    let sources = Plot::offline_js_sources();
    let (_, rest) = sources.split_once('>').expect("the crate returns script elements");
    let (library, _) = rest.split_once("</script>").expect("script elements are closed");
    format!("<script>\n/*\n{LICENSE}*/\n{library}</script>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_contains_only_the_charting_library() {
        let script = script();
        assert_eq!(script.matches("</script>").count(), 1);
        assert!(script.contains("plotly.js v") && script.contains("Permission is hereby granted"));
        assert!(!script.contains("MathJax.loader"), "MathJax is included");
        assert!(script.len() > 1_000_000, "only {} bytes", script.len());
    }
}
