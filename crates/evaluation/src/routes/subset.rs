//! Choosing routes of a file by their ids.

use tandem_scene::{Route, RouteId};

/// A list of routes could not be chosen from a file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubsetError {
    /// No such route.
    #[error("route subset names route {id:?}, which the route file does not have")]
    Unknown {
        /// What the subset says.
        id: String,
    },
    /// A range runs backwards.
    #[error("range {range:?} of the route subset ends before it starts, in the file's order")]
    Reversed {
        /// What the subset says.
        range: String,
    },
    /// A route is chosen twice.
    #[error("route subset names route {id} twice")]
    Repeated {
        /// The route.
        id: RouteId,
    },
}

/// The routes that `subset` chooses, in file order: ids and ranges of ids, separated by commas, e.g.
/// `1,5-9`. A range holds what lies between its two ids in the file. An empty subset chooses all.
///
/// # Errors
/// If an id is unknown or chosen twice, or a range runs backwards.
pub fn select_subset(routes: Vec<Route>, subset: &str) -> Result<Vec<Route>, SubsetError> {
    let subset = subset.replace(char::is_whitespace, "");
    if subset.is_empty() {
        return Ok(routes);
    }
    let place_of = |id: &str| routes.iter().position(|route| route.id.as_str() == id);
    let mut is_chosen = vec![false; routes.len()];
    for part in subset.split(',') {
        let (first, last) = range(part, &place_of)?;
        if last < first {
            return Err(SubsetError::Reversed { range: part.to_owned() });
        }
        for place in first..=last {
            if std::mem::replace(&mut is_chosen[place], true) {
                return Err(SubsetError::Repeated { id: routes[place].id.clone() });
            }
        }
    }
    let chosen = routes.into_iter().zip(is_chosen).filter(|(_, is_chosen)| *is_chosen);
    Ok(chosen.map(|(route, _)| route).collect())
}

/// First and last place of a part of a subset. Ids may have hyphens in them: the whole part is one if
/// there is such a route, and otherwise the first hyphen between two ids makes it a range.
fn range(
    part: &str,
    place_of: &dyn Fn(&str) -> Option<usize>,
) -> Result<(usize, usize), SubsetError> {
    if let Some(place) = place_of(part) {
        return Ok((place, place));
    }
    let ends = || part.match_indices('-').map(|(at, _)| (&part[..at], &part[at + 1..]));
    if let Some(places) = ends().find_map(|(first, last)| place_of(first).zip(place_of(last))) {
        return Ok(places);
    }
    let unknown = ends().flat_map(|(first, last)| [first, last]).find(|id| place_of(id).is_none());
    Err(SubsetError::Unknown { id: unknown.unwrap_or(part).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::parse_routes;

    const WAYPOINTS: &str =
        r#"<waypoints><position x="0" y="0" z="0"/><position x="2" y="0" z="0"/></waypoints>"#;

    #[test]
    fn subsets_choose_ids_with_hyphens() {
        let route = |id: &str| format!("<route id=\"{id}\" town=\"T\">{WAYPOINTS}</route>");
        let text: String = ["1", "a-b", "2", "c"].map(route).concat();
        let routes = parse_routes(format!("<routes>{text}</routes>"), "f.xml").unwrap();
        let chosen = |subset: &str| -> Result<Vec<String>, SubsetError> {
            let chosen = select_subset(routes.clone(), subset)?;
            Ok(chosen.iter().map(|route| route.id.to_string()).collect())
        };
        assert_eq!(chosen("a-b").unwrap(), ["a-b"]);
        assert_eq!(chosen("a-b-c").unwrap(), ["a-b", "2", "c"]);
        assert_eq!(chosen("1-2").unwrap(), ["1", "a-b", "2"]);
        assert_eq!(chosen("1-9"), Err(SubsetError::Unknown { id: "9".to_owned() }));
    }
}
