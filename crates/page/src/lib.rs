//! Self-contained HTML pages: document shell, style sheet and small SVG charts.
//!
//! A page loads no script, font or image, so it can be mailed and archived. A page without scripts
//! is also well-formed XML and prints as displayed. A page with scripts has a content security
//! policy that forbids network access. This crate does not depend on the content of pages.

pub mod chart;
pub mod library;

/// Document shell with placeholders in double braces.
const PAGE: &str = include_str!("page.html");

const STYLE: &str = include_str!("style.css");

/// Content security policy of pages with scripts: inline content only.
const POLICY: &str = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
     script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:\"/>\n";

/// Returns a complete page. `title` and `note` are text, the others HTML. The note is highlighted at
/// the top; an empty note is omitted.
pub fn document(title: &str, subtitle: &str, note: &str, body: &str) -> String {
    assemble([title, subtitle, note, body], STYLE, "", "")
}

/// Returns a [`document`] with `scripts` (HTML) after the body and `style` (CSS) after the default.
pub fn scripted_document(
    title: &str,
    subtitle: &str,
    note: &str,
    body: &str,
    style: &str,
    scripts: &str,
) -> String {
    assemble([title, subtitle, note, body], &format!("{STYLE}{style}"), POLICY, scripts)
}

fn assemble(
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

/// Replaces each name in double braces by its piece, in one pass: braces in pieces are kept.
fn fill(page: &str, pieces: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(pieces.iter().map(|(_, piece)| piece.len()).sum());
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("braces in the shell are balanced");
        let piece = pieces.iter().find(|(known, _)| *known == name);
        out += before;
        out += piece.expect("every name in the shell has a piece").1;
        rest = after;
    }
    out + rest
}

/// Escapes text for HTML text and attribute values. Characters that are not allowed in a page
/// become replacement characters.
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

/// Serializes a value as JSON that is safe inside a `script` element.
pub fn script_json(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_string(value).expect("page data can be serialized as JSON");
    json.replace('<', "\\u003c")
}

/// Returns a definition list of names and values, both text.
pub fn facts(facts: &[(String, String)]) -> String {
    if facts.is_empty() {
        return "<p>No data.</p>".to_owned();
    }
    let rows = facts.iter().map(|(name, value)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
    });
    format!("<dl class=\"facts\">{}</dl>", rows.collect::<String>())
}

/// Returns a highlighted value with its name and its basis; all HTML.
pub fn tile(name: &str, value: &str, basis: &str) -> String {
    format!("<div class=\"tile\"><span>{name}</span><b>{value}</b><small>{basis}</small></div>")
}

/// Returns a drawing with title and caption; all HTML.
pub fn figure(title: &str, drawing: &str, caption: &str) -> String {
    format!("<figure><h3>{title}</h3>{drawing}<figcaption>{caption}</figcaption></figure>")
}

/// Formats a number with `digits` significant digits, without exponent.
pub fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (digits - 1 - magnitude).clamp(0, 12) as usize;
    format!("{value:.decimals$}")
}

/// Formats a duration in milliseconds: three significant digits from 0.1 ms on, two below.
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
    fn numbers_have_the_given_significant_digits() {
        let cases = [(45.0, 4, "45.00"), (0.012_345, 3, "0.0123"), (59_999.0, 4, "59999")];
        for (value, digits, expected) in cases {
            assert_eq!(significant(value, digits), expected);
        }
        assert_eq!((significant(0.0, 3), significant(f64::NAN, 3)), ("0".into(), "NaN".into()));
    }

    #[test]
    fn braces_inside_pieces_are_not_replaced() {
        assert_eq!(fill("<{{a}}|{{b}}>", &[("a", "{{b}}"), ("b", "B")]), "<{{b}}|B>");
    }
}
