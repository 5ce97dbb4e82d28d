//! Errors of route files.

use super::bounds::{LONGEST_GAP_M, LineProblem};
use std::io;
use std::path::PathBuf;
use tandem_xml::{DocumentError, EncodingError};

/// Error returned when a route file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RouteFileError {
    #[error("cannot read route file {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{file}:{line}: not well-formed XML, expected a <{root}> document")]
    Xml {
        file: String,
        line: u32,
        /// Expected document element.
        root: &'static str,
        #[source]
        source: roxmltree::Error,
    },
    /// The document type declares entities.
    #[error("{file}: {source}")]
    Entities { file: String, source: DocumentError },
    /// The bytes are not text in the declared encoding.
    #[error("{file}: {source}")]
    Encoding { file: String, source: EncodingError },
    #[error("{file}: no <{element}> below the document element, expected at least one")]
    Empty {
        file: String,
        /// Element of which at least one is expected.
        element: &'static str,
    },
    /// Error in one element of the file.
    #[error("{file}:{line}: {}{problem}", route.as_ref().map(|id| format!("route {id}: ")).unwrap_or_default())]
    Element {
        file: String,
        /// Line of the element, from 1.
        line: u32,
        /// Route of the element; `None` if the route has no id.
        route: Option<String>,
        problem: Box<Problem>,
    },
}

/// Error in one element of a route file.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Problem {
    #[error("<{element}> has no attribute {attribute:?}, expected one")]
    MissingAttribute { element: String, attribute: &'static str },
    #[error("{attribute}={found:?} of <{element}> is not a finite number")]
    NotANumber { element: String, attribute: String, found: String },
    #[error(
        "{attribute}={found:?} of <{element}> is out of range, expected a number from {least} to \
         {most}"
    )]
    OutOfRange { element: String, attribute: String, found: String, least: f64, most: f64 },
    /// The key points do not form a route.
    #[error(transparent)]
    Line(LineProblem),
    /// A location of a scenario is too far from its route.
    #[error(
        "<{element}> (x={x} y={y}) is {away_m:.0} m from the nearest key point, expected at most \
         {LONGEST_GAP_M} m"
    )]
    FarFromRoute {
        element: String,
        /// Position in the world frame, meters.
        x: f64,
        y: f64,
        /// Distance from the nearest key point, meters.
        away_m: f64,
    },
    #[error("this id was used before, at line {first_line}; expected unique ids")]
    DuplicateId { first_line: u32 },
    #[error(
        "{found} <position> below <waypoints>, expected at least 2 (or 2 <waypoint> in the route \
         itself, as in files of leaderboard 1.0)"
    )]
    TooFewKeyPoints { found: usize },
}
