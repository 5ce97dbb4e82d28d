//! Reads route files in the Bench2Drive XML format.
//!
//! Accepts what the official parser accepts, and rejects what the harness would fail on later, with
//! an error that contains file, line, route and the expected value.

use super::bounds::{
    COORDINATE_M, HEIGHT_M, LineProblem, SCENARIO, WEATHER, YAW_DEG, check_line, out_of_reach_m,
};
use super::error::{Problem, RouteFileError};
use glam::{DVec2, DVec3};
use roxmltree::{Document, Node};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use tandem_scene::{Route, ScenarioSpec, TriggerPoint, WeatherKeyframe};
use tandem_xml::{DocumentError, decode};

/// Default weather: that of CARLA, except cloudiness and sun altitude, which the benchmark sets.
/// Units are percent, degrees, and CARLA's own scales.
const BASE_WEATHER: [(&str, f64); 14] = [
    ("cloudiness", 50.0),
    ("precipitation", 0.0),
    ("precipitation_deposits", 0.0),
    ("wind_intensity", 0.0),
    ("sun_azimuth_angle", 0.0),
    ("sun_altitude_angle", 70.0),
    ("fog_density", 0.0),
    ("fog_distance", 0.0),
    ("fog_falloff", 0.0),
    ("wetness", 0.0),
    ("scattering_intensity", 0.0),
    ("mie_scattering_scale", 0.0),
    ("rayleigh_scattering_scale", 0.0331),
    ("dust_storm", 0.0),
];

/// Reads all routes of a file.
///
/// # Errors
/// If the file can't be read, or as [`parse_routes`].
pub fn read_routes(path: &Path) -> Result<Vec<Route>, RouteFileError> {
    parse_routes(read(path)?, &path.display().to_string())
}

/// Parses all routes of a document: every `<route>` below the document element, in file order.
/// `bytes` are text in the encoding that the document declares. Errors name the file `file`.
///
/// # Errors
/// If the document is not valid; the first error is returned.
pub fn parse_routes(bytes: impl AsRef<[u8]>, file: &str) -> Result<Vec<Route>, RouteFileError> {
    let text = text_of(bytes.as_ref(), file)?;
    let document = parse_xml(&text, file, "routes")?;
    let mut first_lines = BTreeMap::new();
    let mut routes = Vec::new();
    for node in elements_below(document.root_element(), "route") {
        let context = ErrorContext { file, route: node.attribute("id") };
        let route = parse_route(node, context)?;
        let line = line_of(node);
        if let Some(first_line) = first_lines.insert(route.id.clone(), line) {
            return Err(context.error(node, Problem::DuplicateId { first_line }));
        }
        routes.push(route);
    }
    if routes.is_empty() {
        return Err(RouteFileError::Empty { file: file.to_owned(), element: "route" });
    }
    Ok(routes)
}

fn read(path: &Path) -> Result<Vec<u8>, RouteFileError> {
    fs::read(path).map_err(|source| RouteFileError::Read { path: path.to_owned(), source })
}

fn text_of<'a>(bytes: &'a [u8], file: &str) -> Result<Cow<'a, str>, RouteFileError> {
    decode(bytes).map_err(|source| RouteFileError::Encoding { file: file.to_owned(), source })
}

fn parse_xml<'a>(
    text: &'a str,
    file: &str,
    root: &'static str,
) -> Result<Document<'a>, RouteFileError> {
    tandem_xml::parse(text).map_err(|error| match error {
        DocumentError::Malformed(source) => {
            RouteFileError::Xml { file: file.to_owned(), line: source.pos().row, root, source }
        }
        source @ DocumentError::Entities(_) => {
            RouteFileError::Entities { file: file.to_owned(), source }
        }
    })
}

/// File and route of an element, for errors.
#[derive(Clone, Copy)]
struct ErrorContext<'a> {
    file: &'a str,
    route: Option<&'a str>,
}

impl ErrorContext<'_> {
    fn error(self, node: Node<'_, '_>, problem: Problem) -> RouteFileError {
        RouteFileError::Element {
            file: self.file.to_owned(),
            line: line_of(node),
            route: self.route.map(str::to_owned),
            problem: Box::new(problem),
        }
    }

    fn attribute<'n>(
        self,
        node: Node<'n, '_>,
        attribute: &'static str,
    ) -> Result<&'n str, RouteFileError> {
        node.attribute(attribute).ok_or_else(|| {
            let element = node.tag_name().name().to_owned();
            self.error(node, Problem::MissingAttribute { element, attribute })
        })
    }

    fn finite(
        self,
        node: Node<'_, '_>,
        attribute: &str,
        text: &str,
    ) -> Result<f64, RouteFileError> {
        text.trim().parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| {
            let problem = Problem::NotANumber {
                element: node.tag_name().name().to_owned(),
                attribute: attribute.to_owned(),
                found: text.to_owned(),
            };
            self.error(node, problem)
        })
    }

    /// Parses the number `text` and checks that it is within `bounds`.
    fn bounded(
        self,
        node: Node<'_, '_>,
        attribute: &str,
        text: &str,
        bounds: RangeInclusive<f64>,
    ) -> Result<f64, RouteFileError> {
        let number = self.finite(node, attribute, text)?;
        if bounds.contains(&number) {
            return Ok(number);
        }
        let problem = Problem::OutOfRange {
            element: node.tag_name().name().to_owned(),
            attribute: attribute.to_owned(),
            found: text.to_owned(),
            least: *bounds.start(),
            most: *bounds.end(),
        };
        Err(self.error(node, problem))
    }

    fn number(
        self,
        node: Node<'_, '_>,
        attribute: &'static str,
        bounds: RangeInclusive<f64>,
    ) -> Result<f64, RouteFileError> {
        self.bounded(node, attribute, self.attribute(node, attribute)?, bounds)
    }

    fn point(self, node: Node<'_, '_>) -> Result<DVec3, RouteFileError> {
        Ok(DVec3::new(
            self.number(node, "x", COORDINATE_M)?,
            self.number(node, "y", COORDINATE_M)?,
            self.number(node, "z", HEIGHT_M)?,
        ))
    }

    /// Checks the numeric attributes of a scenario's element. Attributes that are not numbers
    /// are text for the scenario.
    fn check_parameter(
        self,
        node: Node<'_, '_>,
        key_points: &[DVec3],
    ) -> Result<(), RouteFileError> {
        let mut xy = [None; 2];
        for attribute in node.attributes() {
            let (name, text) = (attribute.name(), attribute.value());
            if text.trim().parse::<f64>().is_err() {
                continue;
            }
            let bounds = match name {
                "x" | "y" => COORDINATE_M,
                "z" => HEIGHT_M,
                "yaw" => YAW_DEG,
                _ => SCENARIO,
            };
            let number = self.bounded(node, name, text, bounds)?;
            match name {
                "x" => xy[0] = Some(number),
                "y" => xy[1] = Some(number),
                _ => {}
            }
        }
        let [Some(x), Some(y)] = xy else { return Ok(()) };
        match out_of_reach_m(DVec2::new(x, y), key_points) {
            None => Ok(()),
            Some(away_m) => {
                let element = node.tag_name().name().to_owned();
                Err(self.error(node, Problem::FarFromRoute { element, x, y, away_m }))
            }
        }
    }
}

fn parse_route(node: Node<'_, '_>, context: ErrorContext<'_>) -> Result<Route, RouteFileError> {
    let id = context.attribute(node, "id")?.into();
    let town = context.attribute(node, "town")?.to_owned();
    let nodes = key_points(node);
    let key_points: Vec<DVec3> =
        nodes.iter().map(|point| context.point(*point)).collect::<Result<_, _>>()?;
    if key_points.len() < 2 {
        let anchor = child(node, "waypoints").unwrap_or(node);
        return Err(context.error(anchor, Problem::TooFewKeyPoints { found: key_points.len() }));
    }
    check_line(&key_points).map_err(|problem| {
        let number = match problem {
            LineProblem::Gap { number, .. }
            | LineProblem::TooLong { number, .. }
            | LineProblem::Stray { number, .. } => number,
        };
        context.error(nodes[number - 1], Problem::Line(problem))
    })?;
    let scenarios = elements_in_child(node, "scenarios", "scenario")
        .map(|scenario| parse_scenario(scenario, context, &key_points))
        .collect::<Result<_, _>>()?;
    Ok(Route { id, town, key_points, scenarios, weather: parse_weathers(node, context)? })
}

/// Returns the key points in any of three forms: `<position>` below `<waypoints>`
/// (Bench2Drive, leaderboard 2.0), `<waypoint>` below `<waypoints>`, or `<waypoint>` in
/// the route (leaderboard 1.0).
fn key_points<'a, 'i>(node: Node<'a, 'i>) -> Vec<Node<'a, 'i>> {
    let mut points: Vec<Node<'_, '_>> = elements_in_child(node, "waypoints", "position").collect();
    if points.is_empty() {
        points = elements_in_child(node, "waypoints", "waypoint").collect();
    }
    if points.is_empty() {
        points = children(node, "waypoint").collect();
    }
    points
}

fn parse_scenario(
    node: Node<'_, '_>,
    context: ErrorContext<'_>,
    key_points: &[DVec3],
) -> Result<ScenarioSpec, RouteFileError> {
    let name = context.attribute(node, "name")?.to_owned();
    let kind = context.attribute(node, "type")?.to_owned();
    let mut trigger = None;
    let mut parameters = BTreeMap::new();
    for parameter in node.children().filter(Node::is_element) {
        context.check_parameter(parameter, key_points)?;
        match parameter.tag_name().name() {
            "trigger_point" => {
                let position = context.point(parameter)?;
                let yaw_deg = context.number(parameter, "yaw", YAW_DEG)?;
                trigger = Some(TriggerPoint { position, yaw_deg });
            }
            "other_actor" => {}
            tag => {
                // A repeated tag overwrites the earlier one, as in the official parser.
                let attributes = parameter.attributes();
                let attributes =
                    attributes.map(|a| (a.name().to_owned(), a.value().to_owned())).collect();
                parameters.insert(tag.to_owned(), attributes);
            }
        }
    }
    Ok(ScenarioSpec { name, kind, trigger, parameters })
}

fn parse_weathers(
    route: Node<'_, '_>,
    context: ErrorContext<'_>,
) -> Result<Vec<WeatherKeyframe>, RouteFileError> {
    let mut weather = match child(route, "weathers") {
        Some(_) => elements_in_child(route, "weathers", "weather")
            .map(|entry| {
                parse_weather(entry, context, context.number(entry, "route_percentage", WEATHER)?)
            })
            .collect::<Result<Vec<_>, _>>()?,
        // Leaderboard 1.0: one constant weather, directly in the route.
        None => children(route, "weather")
            .take(1)
            .map(|entry| parse_weather(entry, context, 0.0))
            .collect::<Result<Vec<_>, _>>()?,
    };
    if weather.is_empty() {
        weather.push(WeatherKeyframe { route_percentage: 0.0, fields: base_weather() });
    }
    weather.sort_by(|left, right| left.route_percentage.total_cmp(&right.route_percentage));
    Ok(weather)
}

fn parse_weather(
    node: Node<'_, '_>,
    context: ErrorContext<'_>,
    route_percentage: f64,
) -> Result<WeatherKeyframe, RouteFileError> {
    let mut fields = base_weather();
    for attribute in node.attributes() {
        // Files of leaderboard 1.0 have the weather's name in `id`.
        if matches!(attribute.name(), "route_percentage" | "id") {
            continue;
        }
        match fields.get_mut(attribute.name()) {
            Some(field) => {
                *field = context.bounded(node, attribute.name(), attribute.value(), WEATHER)?;
            }
            None => tracing::warn!(
                file = context.file,
                line = line_of(node),
                attribute = attribute.name(),
                "unknown weather field ignored"
            ),
        }
    }
    Ok(WeatherKeyframe { route_percentage, fields })
}

fn base_weather() -> BTreeMap<String, f64> {
    BASE_WEATHER.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn child<'a, 'i>(node: Node<'a, 'i>, tag: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(tag))
}

/// Returns every child with tag `tag`, in file order.
fn children<'a, 'i, 't>(
    node: Node<'a, 'i>,
    tag: &'t str,
) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i, 't> {
    node.children().filter(move |child| child.has_tag_name(tag))
}

/// Returns every `tag` element below `node` at any depth, in file order, without `node` itself.
fn elements_below<'a, 'i, 't>(
    node: Node<'a, 'i>,
    tag: &'t str,
) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i, 't> {
    node.descendants().skip(1).filter(move |element| element.has_tag_name(tag))
}

/// Returns every `tag` element below the first child with tag `parent`.
fn elements_in_child<'a, 'i, 't>(
    node: Node<'a, 'i>,
    parent: &str,
    tag: &'t str,
) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i, 't> {
    child(node, parent).into_iter().flat_map(move |parent| elements_below(parent, tag))
}

fn line_of(node: Node<'_, '_>) -> u32 {
    node.document().text_pos_at(node.range().start).row
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYPOINTS: &str =
        r#"<waypoints><position x="0" y="0" z="0"/><position x="2" y="0" z="0"/></waypoints>"#;

    /// Checks that parsing `text` fails with an error that contains each of `parts`.
    #[track_caller]
    fn check_refused(text: &str, parts: &[&str]) {
        let error = parse_routes(text, "f.xml").expect_err("should be refused").to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }

    fn file(inside: &str) -> String {
        format!("<routes>\n<route id=\"7\" town=\"Town01\">\n{inside}\n</route>\n</routes>")
    }

    #[test]
    fn malformed_xml_is_rejected_with_its_line() {
        check_refused("<routes>\n<route id=\"1\"\n</routes>", &["f.xml:3", "well-formed"]);
    }

    #[test]
    fn encodings_and_document_types_are_read() {
        let text = file(WAYPOINTS).replace("Town01", "Malmö");
        let declared = format!("<?xml version=\"1.0\" encoding=\"UTF-16\"?>\n{text}");
        let units = std::iter::once(0xFEFF).chain(declared.encode_utf16());
        let wide: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        assert_eq!(parse_routes(wide, "f.xml").unwrap()[0].town, "Malmö");
        let declared = format!("<?xml version='1.0' encoding='ISO-8859-1'?>{text}");
        let latin: Vec<u8> = declared.chars().map(|letter| letter as u32 as u8).collect();
        assert_eq!(parse_routes(&latin, "f.xml").unwrap()[0].town, "Malmö");
        let broken = parse_routes(&latin[44..], "f.xml").unwrap_err().to_string();
        assert!(broken.starts_with("f.xml: not valid UTF-8"), "{broken}");
        parse_routes(format!("<!DOCTYPE routes SYSTEM \"r.dtd\">{text}"), "f.xml").unwrap();
        check_refused(
            "<!DOCTYPE a [<!ENTITY b 'c'>]><routes/>",
            &["f.xml", "DOCTYPE declares entities"],
        );
    }

    #[test]
    fn file_without_routes_is_rejected() {
        check_refused("<routes/>", &["f.xml", "no <route>"]);
        check_refused("", &["f.xml", "well-formed"]);
    }

    #[test]
    fn missing_attribute_is_reported_with_its_element() {
        let no_id = format!("<routes><route town=\"Town01\">{WAYPOINTS}</route></routes>");
        check_refused(&no_id, &["f.xml:1", "<route>", "\"id\""]);
        let no_town = format!("<routes><route id=\"3\">{WAYPOINTS}</route></routes>");
        check_refused(&no_town, &["route 3", "\"town\""]);
        let no_z = file("<waypoints>\n<position x=\"1\" y=\"2\"/></waypoints>");
        check_refused(&no_z, &["f.xml:4", "route 7", "<position>", "\"z\""]);
        let no_percentage = file(&format!("{WAYPOINTS}<weathers><weather/></weathers>"));
        check_refused(&no_percentage, &["route 7", "\"route_percentage\""]);
    }

    #[test]
    fn fewer_than_two_key_points_are_rejected() {
        check_refused(&file(""), &["f.xml:2", "route 7", "0 <position>", "at least 2"]);
        let one = file("<waypoints><position x=\"1\" y=\"2\" z=\"3\"/></waypoints>");
        check_refused(&one, &["f.xml:3", "1 <position>"]);
    }

    #[test]
    fn scenarios_of_unknown_types_are_kept() {
        let text = file(&format!(
            "{WAYPOINTS}<scenarios><scenario name=\"a_1\" type=\"PriorityAtJunction\"/></scenarios>"
        ));
        let routes = parse_routes(&text, "f.xml").unwrap();
        assert_eq!(routes[0].scenarios[0].kind, "PriorityAtJunction");
    }

    #[test]
    fn all_forms_of_key_points_give_the_same_route() {
        let points = |tag: &str| {
            format!("<{tag} x=\"0\" y=\"0\" z=\"0\" yaw=\"9\"/><{tag} x=\"2\" y=\"0\" z=\"0\"/>")
        };
        let forms = [
            WAYPOINTS.to_owned(),
            format!("<waypoints>{}</waypoints>", points("waypoint")),
            points("waypoint"),
        ];
        for form in forms {
            let routes = parse_routes(file(&form), "f.xml").unwrap();
            assert_eq!(routes[0].key_points, [DVec3::ZERO, DVec3::new(2.0, 0.0, 0.0)], "{form}");
        }
        let weather = "<weather id=\"WetNoon\" cloudiness=\"20\"/>";
        let text = file(&format!("{}{weather}", points("waypoint")));
        let weather = &parse_routes(&text, "f.xml").unwrap()[0].weather;
        assert_eq!((weather.len(), weather[0].fields["cloudiness"]), (1, 20.0));
    }

    #[test]
    fn ids_are_kept_verbatim() {
        for id in ["007", "a/b", " 7 ", "Straße", ""] {
            let text =
                format!("<routes><route id=\"{id}\" town=\"T\">{WAYPOINTS}</route></routes>");
            assert_eq!(parse_routes(&text, "f.xml").unwrap()[0].id.as_str(), id);
        }
    }

    #[test]
    fn duplicate_id_is_rejected() {
        let route = format!("<route id=\"5\" town=\"T\">{WAYPOINTS}</route>");
        let text = format!("<routes>\n{route}\n{route}\n</routes>");
        check_refused(&text, &["f.xml:3", "route 5", "line 2"]);
    }

    #[test]
    fn non_finite_numbers_are_rejected() {
        for bad in ["east", "nan", "inf", ""] {
            let text =
                file(&format!("<waypoints><position x=\"{bad}\" y=\"2\" z=\"3\"/></waypoints>"));
            check_refused(&text, &["route 7", "finite number", &format!("x={bad:?}")]);
        }
    }

    /// Route file with key points at `positions`.
    fn through(positions: &[(f64, f64)]) -> String {
        let position = |(x, y): &(f64, f64)| format!("<position x='{x}' y='{y}' z='0'/>\n");
        file(&format!(
            "<waypoints>\n{}</waypoints>",
            positions.iter().map(position).collect::<String>()
        ))
    }

    #[test]
    fn implausible_key_points_are_rejected() {
        let dense = |n: i32| (0..n).map(|i| (2.0 * f64::from(i), 0.0));
        let with = |number: usize, position: (f64, f64)| {
            let mut positions: Vec<_> = dense(8).collect();
            positions[number - 1] = position;
            through(&positions)
        };
        check_refused(&with(3, (4.0, 1e18)), &["f.xml:6", "route 7", "y=\"1000000000000000000\""]);
        check_refused(&with(3, (4.0, 4294967295.0)), &["route 7", "y=\"4294967295\"", "20000000"]);
        check_refused(&with(3, (4.0, 32767.0)), &["f.xml:6", "route 7", "key point 3", "y=32767"]);
        check_refused(&with(3, (4.0, 400.0)), &["key point 3", "400 m away from its neighbors"]);
        check_refused(&with(8, (14.0, -9000.0)), &["key point 8", "9000 m from the previous one"]);
        let far: Vec<_> = (0..40).map(|i| (5000.0 * f64::from(i), 0.0)).collect();
        check_refused(&through(&far), &["f.xml:15", "longer than 50000 m at key point 12"]);
        let high = through(&[(0.0, 0.0), (2.0, 0.0)]).replace("z='0'", "z='1e7'");
        check_refused(&high, &["z=\"1e7\"", "out of range", "from -10000 to 10000"]);
        // UTM coordinates, gaps of the leaderboard, and a loop through two gaps are valid.
        for positions in [
            vec![(500_000.0, 9_876_543.0), (500_002.0, 9_876_543.0)],
            vec![(0.0, 0.0), (2579.0, 0.0), (0.0, 3.5)],
        ] {
            parse_routes(through(&positions), "f.xml").unwrap();
        }
    }

    #[test]
    fn numbers_of_scenarios_and_weather_are_bounded() {
        let scenario = |inside: &str| {
            file(&format!(
                "{WAYPOINTS}<scenarios><scenario name='a' type='Accident'>\n{inside}\
                 </scenario></scenarios>"
            ))
        };
        for (inside, parts) in [
            ("<trigger_point x='1' y='2' z='0' yaw='1e9'/>", ["yaw=\"1e9\"", "-3600"]),
            ("<trigger_point x='1' y='9000' z='0' yaw='0'/>", ["<trigger_point>", "9000 m from"]),
            ("<trigger_point x='1' y='2' z='0' yaw='NaN'/>", ["yaw=\"NaN\"", "finite"]),
            ("<distance value='1e300'/>", ["value=\"1e300\" of <distance>", "100000"]),
            ("<distance value='inf'/>", ["value=\"inf\"", "finite"]),
            ("<frequency from='-1e6' to='3'/>", ["from=\"-1e6\"", "out of range"]),
            ("<start_actor_flow x='1e6' y='0' z='0'/>", ["<start_actor_flow>", "expected at most"]),
            (
                "<other_actor x='1e18' y='0' z='0' yaw='0'/>",
                ["x=\"1e18\" of <other_actor>", "20000000"],
            ),
        ] {
            check_refused(&scenario(inside), &["f.xml:4", "route 7", parts[0], parts[1]]);
        }
        parse_routes(scenario("<direction value='left'/><distance value='42'/>"), "f.xml").unwrap();
        let weather =
            |text: &str| file(&format!("{WAYPOINTS}<weathers><weather {text}/></weathers>"));
        check_refused(
            &weather("route_percentage='0' cloudiness='1e30'"),
            &["cloudiness=\"1e30\" of <weather>", "out of range"],
        );
        check_refused(&weather("route_percentage='nan'"), &["route_percentage", "finite"]);
    }

    #[test]
    fn nested_routes_are_read_and_weather_is_sorted_stably() {
        let weathers = r#"<weathers>
            <weather route_percentage="100" cloudiness="1"/>
            <weather route_percentage="0" cloudiness="2"/>
            <weather route_percentage="100" cloudiness="3" snow="9"/></weathers>"#;
        let text = format!(
            "<routes><group><route id=\"1\" town=\"T\">{WAYPOINTS}{weathers}</route></group></routes>"
        );
        let routes = parse_routes(&text, "f.xml").unwrap();
        let order: Vec<_> = routes[0].weather.iter().map(|w| w.fields["cloudiness"]).collect();
        assert_eq!(order, [2.0, 1.0, 3.0]);
        assert_eq!(routes[0].weather[0].fields["sun_altitude_angle"], 70.0);
    }

    #[test]
    fn repeated_parameter_overwrites_the_earlier_one() {
        let text = file(&format!(
            "{WAYPOINTS}<scenarios><scenario name=\"a\" type=\"Accident\">\
             <speed value=\"1\"/><speed from=\"2\"/><other_actor x=\"1\"/></scenario></scenarios>"
        ));
        let scenario = &parse_routes(&text, "f.xml").unwrap()[0].scenarios[0];
        assert_eq!(scenario.parameters.len(), 1);
        assert_eq!(scenario.parameters["speed"].get("from").map(String::as_str), Some("2"));
        assert_eq!(scenario.parameters["speed"].get("value"), None);
    }
}
