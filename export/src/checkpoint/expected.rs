//! Every tensor that each network needs, with its shape.

use std::fmt;

/// A network of the model, as exported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Network {
    /// The vision tower.
    Vision,
    /// The understanding expert's text stack.
    Understanding,
    /// The action expert with its encoders and heads.
    Action,
    /// The BEV encoder.
    Bev,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vision => "vision",
            Self::Understanding => "understanding",
            Self::Action => "action",
            Self::Bev => "BEV",
        })
    }
}
