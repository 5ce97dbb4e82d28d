//! Self-contained HTML pages: the shell around them, their style, and small SVG charts.
//!
//! A page needs no script, no font and no image from elsewhere, so it can be mailed and archived.
//! One without scripts of its own is well-formed XML too, and prints as it looks; one with scripts
//! may not ask the network for anything, which its own policy sees to. Nothing here knows what is on
//! a page.

pub mod chart;
pub mod library;

/// The page around the pieces.
const PAGE: &str = include_str!("page.html");

const STYLE: &str = include_str!("style.css");

/// What a page with scripts may load: what is in it.
const POLICY: &str = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
     script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:\"/>\n";

/// The whole page. `title` and `note` are text, the others HTML; the note is what a reader must
/// know before looking at any number, and stands out at the top; empty for none.
pub fn document(title: &str, subtitle: &str, note: &str, body: &str) -> String {
    whole([title, subtitle, note, body], STYLE, "", "")
}

/// A [`document`] with `scripts` (HTML) behind its body and `style` (CSS) behind the usual one.
pub fn scripted_document(
    title: &str,
    subtitle: &str,
    note: &str,
    body: &str,
    style: &str,
    scripts: &str,
) -> String {
    whole([title, subtitle, note, body], &format!("{STYLE}{style}"), POLICY, scripts)
}

fn whole(
    [title, subtitle, note, body]: [&str; 4],
    style: &str,
    policy: &str,
    scripts: &str,
) -> String {
    let note = match note {
        "" => String::new(),
        note => format!(r#"<p class="note" role="note">{}</p>"#, escape(note)),
    };
    fill(
        PAGE,
        &[
            ("title", &escape(title)),
            ("style", style),
            ("policy", policy),
            ("scripts", scripts),
            ("subtitle", subtitle),
            ("note", &note),
            ("body", body),
        ],
    )
}

/// Puts each piece where the page has its name in double braces. One pass, so that a piece that
/// contains braces stays as it is.
fn fill(page: &str, pieces: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(pieces.iter().map(|(_, piece)| piece.len()).sum());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("braces of the page are closed");
        let piece = pieces.iter().find(|(known, _)| *known == name);
        out += before;
        out += piece.expect("every name in the page has a piece").1;
        rest = after;
    }
    out + rest
}

/// Text as HTML text or attribute value. What no page may hold becomes a question mark in a box.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(letter),
            '\u{FFFE}' | '\u{FFFF}' => out.push(char::REPLACEMENT_CHARACTER),
            control if control.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            plain => out.push(plain),
        }
    }
    out
}

/// A value as JSON that may stand inside a `script` element.
pub fn script_json(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_string(value).expect("what pages hold can be written as JSON");
    json.replace('<', "\\u003c")
}

/// A list of names and values, both text.
pub fn facts(facts: &[(String, String)]) -> String {
    if facts.is_empty() {
        return "<p>Nothing was noted.</p>".to_owned();
    }
    let rows = facts.iter().map(|(name, value)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
    });
    format!("<dl class=\"facts\">{}</dl>", rows.collect::<String>())
}

/// One number that stands out, with what it rests on; all HTML.
pub fn tile(name: &str, value: &str, basis: &str) -> String {
    format!("<div class=\"tile\"><span>{name}</span><b>{value}</b><small>{basis}</small></div>")
}

/// A drawing under its title; all HTML.
pub fn figure(title: &str, drawing: &str, caption: &str) -> String {
    format!("<figure><h3>{title}</h3>{drawing}<figcaption>{caption}</figcaption></figure>")
}

/// Milliseconds: three significant digits, two below 10 µs.
pub fn milliseconds(nanos: u64) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    let value = nanos as f64 / 1e6;
    let digits = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.0095 => 3,
        v if v >= 0.00095 => 4,
        _ => 5,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_three_significant_digits() {
        let cases = [
            (123_456_789, "123"),
            (12_345_678, "12.3"),
            (1_234_567, "1.23"),
            (12_345, "0.012"),
            (1_234, "0.0012"),
            (43, "0.00004"),
            (0, "0"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(milliseconds(nanos), expected);
        }
    }

    #[test]
    fn pieces_with_braces_stay_as_they_are() {
        assert_eq!(fill("<{{a}}|{{b}}>", &[("a", "{{b}}"), ("b", "B")]), "<{{b}}|B>");
    }
}
