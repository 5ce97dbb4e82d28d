//! Protobuf descriptors of Foxglove's messages for generic readers: one `FileDescriptorSet` per
//! schema, with one file per message as Foxglove publishes them.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet,
};

/// Descriptor of a protobuf message.
pub(super) struct Described {
    package: &'static str,
    folder: &'static str,
    file: &'static str,
    name: &'static str,
    fields: &'static [Field],
    /// Name and values, from 0, of the enum in the message.
    numbered: Option<(&'static str, &'static [&'static str])>,
}

struct Field(i32, &'static str, Of);

/// Type of a message's field.
enum Of {
    One(Type),
    Doubles,
    Message(&'static Described),
    Messages(&'static Described),
    /// Enum defined in the message.
    Numbered,
}

use Of::{Doubles, Messages, Numbered, One};

const fn foxglove(name: &'static str, fields: &'static [Field]) -> Described {
    let (package, folder) = ("foxglove", "foxglove");
    Described { package, folder, file: name, name, fields, numbered: None }
}

static TIMESTAMP: Described = Described {
    package: "google.protobuf",
    folder: "google/protobuf",
    file: "timestamp",
    name: "Timestamp",
    fields: &[Field(1, "seconds", One(Type::Int64)), Field(2, "nanos", One(Type::Int32))],
    numbered: None,
};

static VECTOR: Described = foxglove(
    "Vector3",
    &[
        Field(1, "x", One(Type::Double)),
        Field(2, "y", One(Type::Double)),
        Field(3, "z", One(Type::Double)),
    ],
);

static QUATERNION: Described = foxglove(
    "Quaternion",
    &[
        Field(1, "x", One(Type::Double)),
        Field(2, "y", One(Type::Double)),
        Field(3, "z", One(Type::Double)),
        Field(4, "w", One(Type::Double)),
    ],
);

static POSE: Described = foxglove(
    "Pose",
    &[
        Field(1, "position", Of::Message(&VECTOR)),
        Field(2, "orientation", Of::Message(&QUATERNION)),
    ],
);

static PACKED_ELEMENT_FIELD: Described = Described {
    numbered: Some((
        "NumericType",
        &["UNKNOWN", "UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "FLOAT32", "FLOAT64"],
    )),
    ..foxglove(
        "PackedElementField",
        &[
            Field(1, "name", One(Type::String)),
            Field(2, "offset", One(Type::Fixed32)),
            Field(3, "type", Numbered),
        ],
    )
};

static FRAME_TRANSFORM: Described = foxglove(
    "FrameTransform",
    &[
        Field(1, "timestamp", Of::Message(&TIMESTAMP)),
        Field(2, "parent_frame_id", One(Type::String)),
        Field(3, "child_frame_id", One(Type::String)),
        Field(4, "translation", Of::Message(&VECTOR)),
        Field(5, "rotation", Of::Message(&QUATERNION)),
    ],
);

pub(super) static FRAME_TRANSFORMS: Described =
    foxglove("FrameTransforms", &[Field(1, "transforms", Messages(&FRAME_TRANSFORM))]);

pub(super) static RAW_IMAGE: Described = foxglove(
    "RawImage",
    &[
        Field(1, "timestamp", Of::Message(&TIMESTAMP)),
        Field(7, "frame_id", One(Type::String)),
        Field(2, "width", One(Type::Fixed32)),
        Field(3, "height", One(Type::Fixed32)),
        Field(4, "encoding", One(Type::String)),
        Field(5, "step", One(Type::Fixed32)),
        Field(6, "data", One(Type::Bytes)),
    ],
);

pub(super) static POINT_CLOUD: Described = foxglove(
    "PointCloud",
    &[
        Field(1, "timestamp", Of::Message(&TIMESTAMP)),
        Field(2, "frame_id", One(Type::String)),
        Field(3, "pose", Of::Message(&POSE)),
        Field(4, "point_stride", One(Type::Fixed32)),
        Field(5, "fields", Messages(&PACKED_ELEMENT_FIELD)),
        Field(6, "data", One(Type::Bytes)),
    ],
);

pub(super) static CAMERA_CALIBRATION: Described = foxglove(
    "CameraCalibration",
    &[
        Field(1, "timestamp", Of::Message(&TIMESTAMP)),
        Field(9, "frame_id", One(Type::String)),
        Field(2, "width", One(Type::Fixed32)),
        Field(3, "height", One(Type::Fixed32)),
        Field(4, "distortion_model", One(Type::String)),
        Field(5, "D", Doubles),
        Field(6, "K", Doubles),
        Field(7, "R", Doubles),
        Field(8, "P", Doubles),
    ],
);

impl Described {
    /// Returns the schema data for an MCAP file: an encoded `FileDescriptorSet`.
    pub(super) fn schema(&self) -> Vec<u8> {
        let mut set = FileDescriptorSet::default();
        self.append_to(&mut set.file);
        set.encode_to_vec()
    }

    /// Appends the file of this message after those of its dependencies.
    fn append_to(&self, files: &mut Vec<FileDescriptorProto>) {
        if files.iter().any(|file| file.name.as_ref() == Some(&self.path())) {
            return;
        }
        let dependencies = self.dependencies();
        dependencies.iter().for_each(|other| other.append_to(files));
        let mut dependency: Vec<String> = dependencies.iter().map(|other| other.path()).collect();
        dependency.sort_unstable();
        dependency.dedup();
        files.push(FileDescriptorProto {
            name: Some(self.path()),
            package: Some(self.package.to_owned()),
            dependency,
            message_type: vec![self.message()],
            syntax: Some("proto3".to_owned()),
            ..Default::default()
        });
    }

    fn path(&self) -> String {
        format!("{}/{}.proto", self.folder, self.file)
    }

    fn dependencies(&self) -> Vec<&'static Self> {
        let message = |field: &Field| match field.2 {
            Of::Message(other) | Messages(other) => Some(other),
            One(_) | Doubles | Numbered => None,
        };
        self.fields.iter().filter_map(message).collect()
    }

    fn message(&self) -> DescriptorProto {
        let value = |(number, name): (i32, &&str)| EnumValueDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(number),
            options: None,
        };
        let numbered = self.numbered.map(|(name, values)| EnumDescriptorProto {
            name: Some(name.to_owned()),
            value: (0..).zip(values).map(value).collect(),
            ..Default::default()
        });
        DescriptorProto {
            name: Some(self.name.to_owned()),
            field: self.fields.iter().map(|field| self.field(field)).collect(),
            enum_type: numbered.into_iter().collect(),
            ..Default::default()
        }
    }

    fn field(&self, Field(number, name, of): &Field) -> FieldDescriptorProto {
        let of_message = |other: &Self| Some(format!(".{}.{}", other.package, other.name));
        let (label, kind, type_name) = match of {
            One(kind) => (Label::Optional, *kind, None),
            Doubles => (Label::Repeated, Type::Double, None),
            Of::Message(other) => (Label::Optional, Type::Message, of_message(other)),
            Messages(other) => (Label::Repeated, Type::Message, of_message(other)),
            Numbered => {
                let (name, _) = self.numbered.expect("the message has an enum");
                let type_name = format!(".{}.{}.{name}", self.package, self.name);
                (Label::Optional, Type::Enum, Some(type_name))
            }
        };
        FieldDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(*number),
            label: Some(label.into()),
            r#type: Some(kind.into()),
            type_name,
            ..Default::default()
        }
    }
}
