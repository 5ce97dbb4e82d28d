//! OpenDRIVE files, prepared for the map reader.
//!
//! The reader computes in 32 bits, which resolve only half a meter in UTM coordinates. The file is
//! therefore rewritten around an origin in the middle of its roads.

use glam::DVec2;
use roxmltree::Node;
use std::collections::HashMap;
use std::fmt::Write;
use tandem_xml::DocumentError;
use xodr::{Provenance, RoadNetwork};

/// A lane offset that begins this close to a lane section begins with it, meters: tools round the
/// two differently, and in between a lane would be off by its width.
const SAME_STATION_M: f64 = 0.01;

/// Elements that no lane depends on.
const SKIPPED: [&str; 5] = ["objects", "userData", "dataQuality", "railroad", "surface"];

/// Maximum nesting depth of elements; each level takes stack space.
const DEEPEST: usize = 64;

/// A map as read, in coordinates around `origin`.
pub(super) struct OpenDrive {
    pub(super) network: RoadNetwork,
    pub(super) provenance: Provenance,
    /// Offset to add to the network's coordinates, meters.
    pub(crate) origin: DVec2,
    /// Starts of lane sections and lane offsets by road id, meters from the start of the road.
    pub(crate) stations: HashMap<String, Stations>,
}

/// Sorted stations of a road at which its records begin.
#[derive(Default)]
pub(super) struct Stations {
    pub(super) sections_m: Vec<f64>,
    pub(super) offsets_m: Vec<f64>,
}

/// Error returned when a text is not an OpenDRIVE map.
#[derive(Debug, thiserror::Error)]
pub enum OpenDriveError {
    /// The text is not an XML document.
    #[error("line {}", .0.line())]
    Document(#[source] DocumentError),
    /// Its elements are nested too deeply.
    #[error("its elements are nested more than {DEEPEST} deep")]
    Nested,
    /// The reader cannot import its lanes.
    #[error(transparent)]
    Lanes(xodr::ImportError),
}

impl OpenDrive {
    /// Reads the text of an OpenDRIVE file.
    pub(crate) fn read(text: &str) -> Result<Self, OpenDriveError> {
        let document = tandem_xml::parse(text).map_err(OpenDriveError::Document)?;
        let root = document.root_element();
        if is_deeper(root, DEEPEST) {
            return Err(OpenDriveError::Nested);
        }
        let origin = middle(root);
        let mut stations = HashMap::new();
        for road in root.children().filter(|node| node.has_tag_name("road")) {
            let id = road.attribute("id").unwrap_or_default();
            stations.entry(id.to_owned()).or_insert_with(|| Stations::of(road));
        }
        let mut local = String::with_capacity(text.len());
        write(root, origin, &stations, &mut local);
        drop(document);
        let (network, provenance) =
            xodr::load_str_with_provenance(&local).map_err(OpenDriveError::Lanes)?;
        Ok(Self { network, provenance, origin, stations })
    }
}

impl Stations {
    fn of(road: Node<'_, '_>) -> Self {
        let lanes = || road.children().filter(|node| node.has_tag_name("lanes"));
        let is_permanent = |node: &Node<'_, '_>| node.attribute("layer") != Some("temporary");
        let Some(lanes) = lanes().find(is_permanent).or(lanes().next()) else {
            return Self::default();
        };
        let starts = |tag: &str| -> Vec<f64> {
            let records = lanes.children().filter(|node| node.has_tag_name(tag));
            let mut starts: Vec<f64> =
                records.map(|node| number(node, "s").unwrap_or(0.0).max(0.0)).collect();
            starts.sort_by(f64::total_cmp);
            starts
        };
        let sections_m = starts("laneSection");
        let offsets_m = starts("laneOffset").iter().map(|&at| snapped(at, &sections_m)).collect();
        Self { sections_m, offsets_m }
    }
}

/// Returns `station_m`, or the nearest start of a section if that is within [`SAME_STATION_M`].
fn snapped(station_m: f64, sections_m: &[f64]) -> f64 {
    let away = |section: &&f64| (*section - station_m).abs();
    let nearest = sections_m.iter().min_by(|a, b| away(a).total_cmp(&away(b)));
    nearest.filter(|section| away(section) <= SAME_STATION_M).map_or(station_m, |section| *section)
}

fn number(node: Node<'_, '_>, name: &str) -> Option<f64> {
    node.attribute(name)?.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Returns true if elements below `node` are nested more than `levels` deep.
fn is_deeper(node: Node<'_, '_>, levels: usize) -> bool {
    levels == 0 || node.children().any(|child| is_deeper(child, levels - 1))
}

/// Returns the middle of all roads' geometry, rounded to full meters so that adding it is exact.
fn middle(root: Node<'_, '_>) -> DVec2 {
    let places = root
        .descendants()
        .filter(is_placed)
        .filter_map(|node| Some(DVec2::new(number(node, "x")?, number(node, "y")?)));
    let bounds = places.map(|place| (place, place)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    bounds.map_or(DVec2::ZERO, |(low, high)| ((low + high) / 2.0).round())
}

/// Returns true for elements whose attributes `x` and `y` are places of the map.
fn is_placed(node: &Node<'_, '_>) -> bool {
    node.has_tag_name("geometry") || node.has_tag_name("positionInertial")
}

/// Appends `node` to `out`, with places around `origin` and lane offsets at their sections.
fn write(
    node: Node<'_, '_>,
    origin: DVec2,
    stations: &HashMap<String, Stations>,
    out: &mut String,
) {
    let name = node.tag_name().name();
    if SKIPPED.contains(&name) {
        return;
    }
    let is_placed = is_placed(&node);
    let sections_m = (name == "laneOffset")
        .then(|| node.ancestors().find(|above| above.has_tag_name("road")))
        .flatten()
        .and_then(|road| stations.get(road.attribute("id").unwrap_or_default()))
        .map(|stations| &stations.sections_m);
    out.push('<');
    out.push_str(name);
    for attribute in node.attributes() {
        let (key, value) = (attribute.name(), attribute.value());
        if attribute.namespace().is_some() {
            continue;
        }
        let moved = match (key, sections_m) {
            ("x", _) if is_placed => number(node, key).map(|x| x - origin.x),
            ("y", _) if is_placed => number(node, key).map(|y| y - origin.y),
            ("s", Some(sections_m)) => number(node, key).map(|s| snapped(s, sections_m)),
            _ => None,
        };
        let written = match moved {
            Some(moved) => write!(out, " {key}=\"{moved}\""),
            None => write!(out, " {key}=\"{}\"", Escaped(value)),
        };
        written.expect("writing to a string cannot fail");
    }
    out.push('>');
    for child in node.children() {
        if child.is_element() {
            write(child, origin, stations, out);
        } else if let Some(text) = child.text().filter(|_| child.is_text()) {
            write!(out, "{}", Escaped(text)).expect("writing to a string cannot fail");
        }
    }
    write!(out, "</{name}>").expect("writing to a string cannot fail");
}

/// Text with the special characters of XML escaped.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeply_nested_file_is_refused() {
        let deep = |levels: usize| {
            let text = format!("{}{}", "<a>".repeat(levels), "</a>".repeat(levels));
            OpenDrive::read(&format!("<OpenDRIVE>{text}</OpenDRIVE>"))
        };
        assert!(matches!(deep(100_000), Err(OpenDriveError::Nested)));
        assert!(matches!(deep(30), Err(OpenDriveError::Lanes(_))));
    }

    #[test]
    fn markup_in_text_and_attributes_is_preserved() {
        let map = OpenDrive::read(
            "<OpenDRIVE xmlns:x='urn:x'><header name='a &amp; &quot;b&quot; &lt;c&gt;' x:name='d'>\
             <geoReference><![CDATA[+proj=utm <&> ]]></geoReference></header><road id='1' length='9' \
             junction='-1'><planView><geometry s='0' x='-7' y='5' hdg='0' length='9'><line/></geometry>\
             </planView><lanes><laneSection s='0'><center><lane id='0'/></center><right><lane id='-1' \
             type='driving'><width sOffset='0' a='3' b='0' c='0' d='0'/></lane></right></laneSection>\
             </lanes></road></OpenDRIVE>",
        );
        let map = map.unwrap();
        assert_eq!(map.network.header().name, "a & \"b\" <c>");
        let proj = map.network.geo_reference().proj.as_deref().map(str::trim);
        assert_eq!(proj, Some("+proj=utm <&>"));
        assert_eq!(map.origin, DVec2::new(-7.0, 5.0));
    }
}
