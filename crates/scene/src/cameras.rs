//! Camera names and values per camera.

use arrayvec::ArrayVec;
use std::fmt;
use std::str::FromStr;

/// Maximum number of cameras of a vehicle.
pub const MAX_CAMERAS: usize = 8;

/// Maximum length of a name, bytes.
const MAX_NAME: usize = 24;

/// Name of a camera: 1 to 24 lower-case letters, digits and underscores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CameraId {
    /// The name, padded with zeros.
    bytes: [u8; MAX_NAME],
}

/// Error returned when a text is not a valid camera name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a camera's name has 1 to {MAX_NAME} lower-case letters, digits and underscores")]
pub struct CameraIdError;

impl CameraId {
    /// Name of the front camera, `front`.
    pub const FRONT: Self = Self::named("front");

    /// Creates an id from a literal.
    ///
    /// # Panics
    /// If `name` is not a valid camera name; in a constant, at compile time.
    pub const fn named(name: &str) -> Self {
        match Self::read(name) {
            Some(id) => id,
            None => panic!("a camera's name has 1 to 24 of a-z, 0-9 and _"),
        }
    }

    const fn read(name: &str) -> Option<Self> {
        let name = name.as_bytes();
        if name.is_empty() || name.len() > MAX_NAME {
            return None;
        }
        let mut bytes = [0; MAX_NAME];
        let mut idx = 0;
        while idx < name.len() {
            match name[idx] {
                byte @ (b'a'..=b'z' | b'0'..=b'9' | b'_') => bytes[idx] = byte,
                _ => return None,
            }
            idx += 1;
        }
        Some(Self { bytes })
    }

    /// Returns the name without padding, as text.
    pub fn as_str(&self) -> &str {
        let name = self.bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        std::str::from_utf8(name).expect("names are ASCII")
    }
}

impl FromStr for CameraId {
    type Err = CameraIdError;

    fn from_str(name: &str) -> Result<Self, CameraIdError> {
        Self::read(name).ok_or(CameraIdError)
    }
}

impl fmt::Display for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A value per camera, by name, in the order of insertion. Does not allocate.
#[derive(Clone, PartialEq, Debug)]
pub struct Cameras<T>(ArrayVec<(CameraId, T), MAX_CAMERAS>);

/// Error returned when a camera cannot be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CamerasError {
    #[error("there are two cameras named {0:?}")]
    Twice(CameraId),
    #[error("camera {0:?} is one too many: a vehicle has at most {MAX_CAMERAS}")]
    TooMany(CameraId),
}

impl<T> Cameras<T> {
    /// An empty map without cameras.
    pub const NONE: Self = Self(ArrayVec::new_const());

    /// Creates a map with one camera.
    pub fn one(id: CameraId, of: T) -> Self {
        Self(ArrayVec::from_iter([(id, of)]))
    }

    /// Appends a camera after the existing ones.
    ///
    /// # Errors
    /// If the name is already present, or there are already [`MAX_CAMERAS`].
    pub fn insert(&mut self, id: CameraId, of: T) -> Result<(), CamerasError> {
        if self.get(id).is_some() {
            return Err(CamerasError::Twice(id));
        }
        if self.0.is_full() {
            return Err(CamerasError::TooMany(id));
        }
        self.0.push((id, of));
        Ok(())
    }

    /// Returns the value of camera `id`.
    pub fn get(&self, id: CameraId) -> Option<&T> {
        self.0.iter().find(|(name, _)| *name == id).map(|(_, of)| of)
    }

    /// Returns a mutable reference to the value of camera `id`.
    pub fn get_mut(&mut self, id: CameraId) -> Option<&mut T> {
        self.0.iter_mut().find(|(name, _)| *name == id).map(|(_, of)| of)
    }

    /// Iterates over all cameras, in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (CameraId, &T)> {
        self.0.iter().map(|(id, of)| (*id, of))
    }

    /// Returns the first camera's value.
    pub fn first(&self) -> Option<&T> {
        self.0.first().map(|(_, of)| of)
    }

    /// Returns the number of cameras.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there are no cameras.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Maps the value of each camera, keeping names and order.
    pub fn map<U>(&self, mut f: impl FnMut(CameraId, &T) -> U) -> Cameras<U> {
        Cameras(self.0.iter().map(|(id, of)| (*id, f(*id, of))).collect())
    }

    /// Same as [`map`](Self::map), with mutable access to the values.
    pub fn map_mut<U>(&mut self, mut f: impl FnMut(CameraId, &mut T) -> U) -> Cameras<U> {
        Cameras(self.0.iter_mut().map(|(id, of)| (*id, f(*id, of))).collect())
    }
}

impl<T> IntoIterator for Cameras<T> {
    type Item = (CameraId, T);
    type IntoIter = arrayvec::IntoIter<(CameraId, T), MAX_CAMERAS>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T> Default for Cameras<T> {
    fn default() -> Self {
        Self::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_names_are_accepted() {
        let longest = "a".repeat(MAX_NAME);
        for name in ["front", "front_left", "cam0", "_", &longest] {
            assert_eq!(name.parse::<CameraId>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(MAX_NAME + 1);
        for name in ["", "Front", "front-left", "a/b", "a b", "ä", "a\0", &too_long] {
            assert_eq!(name.parse::<CameraId>(), Err(CameraIdError), "{name:?}");
        }
    }

    #[test]
    fn names_are_unique_and_order_is_kept() {
        let mut cameras = Cameras::default();
        let names: Vec<CameraId> =
            (0..MAX_CAMERAS).rev().map(|number| format!("cam{number}").parse().unwrap()).collect();
        for (number, name) in names.iter().enumerate() {
            cameras.insert(*name, number).unwrap();
        }
        assert_eq!(cameras.insert(names[3], 9), Err(CamerasError::Twice(names[3])));
        assert_eq!(cameras.insert(CameraId::FRONT, 9), Err(CamerasError::TooMany(CameraId::FRONT)));
        assert_eq!((cameras.get(names[3]), cameras.get(CameraId::FRONT)), (Some(&3), None));
        assert!(cameras.iter().map(|(name, _)| name).eq(names));
        assert!(
            cameras
                .map(|_, number| number * 2)
                .iter()
                .map(|(_, twice)| twice / 2)
                .eq(0..MAX_CAMERAS)
        );
    }
}
