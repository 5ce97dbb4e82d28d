//! What can be wrong with a route file.

use super::bounds::{LONGEST_GAP_M, LineProblem};
use std::io;
use std::path::PathBuf;
use tandem_xml::{DocumentError, EncodingError};

/// A route file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RouteFileError {
    /// The file could not be read.
    #[error("cannot read route file {path:?}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not well-formed XML.
    #[error("{file}:{line}: not well-formed XML, expected a <{root}> document")]
    Xml {
        /// The file, as the caller named it.
        file: String,
        /// Line, from 1.
        line: u32,
        /// The document element that was expected.
        root: &'static str,
        /// The XML reader's words.
        #[source]
        source: roxmltree::Error,
    },
    /// The document type declares entities.
    #[error("{file}: {source}")]
    Entities {
        /// The file, as the caller named it.
        file: String,
        /// What the XML reader reports.
        source: DocumentError,
    },
    /// The file is not text in its encoding.
    #[error("{file}: {source}")]
    Encoding {
        /// The file, as the caller named it.
        file: String,
        /// Why.
        source: EncodingError,
    },
    /// The file holds nothing to drive.
    #[error("{file}: no <{element}> below the document element, expected at least one")]
    Empty {
        /// The file, as the caller named it.
        file: String,
        /// The element that was expected.
        element: &'static str,
    },
    /// One element is wrong.
    #[error("{file}:{line}: {}{problem}", route.as_ref().map(|id| format!("route {id}: ")).unwrap_or_default())]
    Element {
        /// The file, as the caller named it.
        file: String,
        /// Line of the element, from 1.
        line: u32,
        /// The route it is in, as far as known.
        route: Option<String>,
        /// What was found and what was expected.
        problem: Box<Problem>,
    },
}

/// What is wrong with one element.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Problem {
    /// A required attribute is absent.
    #[error("<{element}> has no attribute {attribute:?}, expected one")]
    MissingAttribute {
        /// Tag of the element.
        element: String,
        /// The attribute that was expected.
        attribute: &'static str,
    },
    /// A number was expected.
    #[error("{attribute}={found:?} of <{element}> is not a finite number")]
    NotANumber {
        /// Tag of the element.
        element: String,
        /// Name of the attribute.
        attribute: String,
        /// Its text.
        found: String,
    },
    /// A number is out of the bounds that any route needs.
    #[error(
        "{attribute}={found:?} of <{element}> is out of range, expected a number from {least} to \
         {most}"
    )]
    OutOfRange {
        /// Tag of the element.
        element: String,
        /// Name of the attribute.
        attribute: String,
        /// Its text.
        found: String,
        /// Lower bound.
        least: f64,
        /// Upper bound.
        most: f64,
    },
    /// The key points cannot be one route.
    #[error(transparent)]
    Line(LineProblem),
    /// A place of a scenario is nowhere near its route.
    #[error(
        "<{element}> (x={x} y={y}) is {away_m:.0} m from the nearest key point, expected at most \
         {LONGEST_GAP_M} m"
    )]
    FarFromRoute {
        /// Tag of the element.
        element: String,
        /// World meters.
        x: f64,
        /// World meters.
        y: f64,
        /// Distance from the nearest key point, meters.
        away_m: f64,
    },
    /// The id was used before.
    #[error("this id was used before, at line {first_line}; expected unique ids")]
    DuplicateId {
        /// Where it was used first, from 1.
        first_line: u32,
    },
    /// Too little to drive along.
    #[error(
        "{found} <position> below <waypoints>, expected at least 2 (or 2 <waypoint> in the route \
         itself, as in files of leaderboard 1.0)"
    )]
    TooFewKeyPoints {
        /// How many there are.
        found: usize,
    },
}
