//! Selects routes of a file by their ids.

use tandem_scene::{Route, RouteId};

/// Error in the text of a route subset.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubsetError {
    #[error("route {id:?} of the route subset is not in the route file")]
    Unknown { id: String },
    #[error("range {range:?} of the route subset ends before it starts, in the file's order")]
    Reversed { range: String },
    #[error("route {id} occurs twice in the route subset")]
    Repeated { id: RouteId },
}

/// Returns the routes of `subset`, in file order. A subset is a list of ids and ranges of ids,
/// separated by commas, e.g. `1,5-9`. A range contains the routes between its two ids in the file.
/// An empty subset selects all routes.
///
/// # Errors
/// If an id is unknown or occurs twice, or a range is reversed.
pub fn select_subset(routes: Vec<Route>, subset: &str) -> Result<Vec<Route>, SubsetError> {
    let subset = subset.replace(char::is_whitespace, "");
    if subset.is_empty() {
        return Ok(routes);
    }
    let position_of = |id: &str| routes.iter().position(|route| route.id.as_str() == id);
    let mut is_chosen = vec![false; routes.len()];
    for part in subset.split(',') {
        let (first, last) = range(part, &position_of)?;
        if last < first {
            return Err(SubsetError::Reversed { range: part.to_owned() });
        }
        for idx in first..=last {
            if std::mem::replace(&mut is_chosen[idx], true) {
                return Err(SubsetError::Repeated { id: routes[idx].id.clone() });
            }
        }
    }
    let chosen = routes.into_iter().zip(is_chosen).filter(|(_, is_chosen)| *is_chosen);
    Ok(chosen.map(|(route, _)| route).collect())
}

/// Returns the first and last position of a part of a subset. Ids may contain hyphens: the part is
/// an id if such a route exists, otherwise the first hyphen between two ids separates a range.
fn range(
    part: &str,
    position_of: &dyn Fn(&str) -> Option<usize>,
) -> Result<(usize, usize), SubsetError> {
    if let Some(position) = position_of(part) {
        return Ok((position, position));
    }
    let ends = || part.match_indices('-').map(|(at, _)| (&part[..at], &part[at + 1..]));
    let positions = ends().find_map(|(first, last)| position_of(first).zip(position_of(last)));
    if let Some(positions) = positions {
        return Ok(positions);
    }
    let unknown =
        ends().flat_map(|(first, last)| [first, last]).find(|id| position_of(id).is_none());
    Err(SubsetError::Unknown { id: unknown.unwrap_or(part).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::parse_routes;

    const WAYPOINTS: &str =
        r#"<waypoints><position x="0" y="0" z="0"/><position x="2" y="0" z="0"/></waypoints>"#;

    #[test]
    fn subsets_select_ids_with_hyphens() {
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
