//! The charting library of pages with scripts: plotly.js, as the `plotly` crate brings it.
//!
//! The crate's archive holds the minified library (3.0.1, MIT), so Cargo fetches it by hash and no
//! build touches another network. The crate's MathJax is left out: no chart has formulas.

use plotly::Plot;

/// What the license asks to stand beside every copy.
const LICENSE: &str = include_str!("plotly_license.txt");

/// The library as a script element, with its license.
pub fn script() -> String {
    let sources = Plot::offline_js_sources();
    let (_, rest) = sources.split_once('>').expect("the crate gives script elements");
    let (library, _) = rest.split_once("</script>").expect("script elements are closed");
    format!("<script>\n/*\n{LICENSE}*/\n{library}</script>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_the_charting_library_alone() {
        let script = script();
        assert_eq!(script.matches("</script>").count(), 1);
        assert!(script.contains("plotly.js v") && script.contains("Permission is hereby granted"));
        assert!(!script.contains("MathJax.loader"), "the formula library came along");
        assert!(script.len() > 1_000_000, "{} bytes are no charting library", script.len());
    }
}
