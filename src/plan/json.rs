//! Where JSON and the rule types meet: the short forms (`7` for a feature, `2.0` for a strength, `"all"` for sequences).

use super::rule::{Feature, Features, Strength, Unit, Vector};
use super::selector::Sequences;
use crate::error::{Error, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// Refuses a version that this library does not know before anything else is judged: a newer plan may have keys that look
/// like mistakes to us. Text that is not JSON passes; the full parse says what is wrong with it.
pub(super) fn check_version(text: &str, name: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Header {
        version: u64,
    }
    match serde_json::from_str::<Header>(text) {
        Ok(header) if header.version != u64::from(super::VERSION) => Err(Error::unsupported(format!(
            "{name}: version: this library reads plans of version {}, found {}",
            super::VERSION,
            header.version
        ))),
        _ => Ok(()),
    }
}

fn one() -> f32 {
    1.0
}

impl Serialize for Feature {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        if self.weight == 1.0 {
            return out.serialize_u32(self.id);
        }
        let mut object = out.serialize_struct("Feature", 2)?;
        object.serialize_field("id", &self.id)?;
        object.serialize_field("weight", &self.weight)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            id: u32,
            #[serde(default = "one")]
            weight: f32,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Feature;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a feature: its id, or {\"id\": …, \"weight\": …}")
            }
            fn visit_u64<E: serde::de::Error>(self, id: u64) -> std::result::Result<Feature, E> {
                let id = u32::try_from(id).map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(id), &self))?;
                Ok(id.into())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Feature, A::Error> {
                let Object { id, weight } = Object::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Feature { id, weight })
            }
        }
        input.deserialize_any(Form)
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Features::All => out.serialize_str("all"),
            Features::Only(list) => list.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Features;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of features, or \"all\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Features, E> {
                match text {
                    "all" => Ok(Features::All),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Features, A::Error> {
                let mut features = Vec::new();
                while let Some(feature) = list.next_element()? {
                    features.push(feature);
                }
                Ok(Features::Only(features))
            }
        }
        input.deserialize_any(Form)
    }
}

impl Serialize for Strength {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        if self.unit == Unit::Raw {
            return out.serialize_f32(self.value);
        }
        let mut object = out.serialize_struct("Strength", 2)?;
        object.serialize_field("value", &self.value)?;
        object.serialize_field("unit", &self.unit)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for Strength {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            value: f32,
            #[serde(default)]
            unit: Unit,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Strength;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a strength: a number, or {\"value\": …, \"unit\": \"raw\" | \"activation\" | \"norm\"}")
            }
            fn visit_u64<E>(self, value: u64) -> std::result::Result<Strength, E> {
                Ok(Strength::raw(value as f32))
            }
            fn visit_i64<E>(self, value: i64) -> std::result::Result<Strength, E> {
                Ok(Strength::raw(value as f32))
            }
            fn visit_f64<E>(self, value: f64) -> std::result::Result<Strength, E> {
                Ok(Strength::raw(value as f32))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Strength, A::Error> {
                let Object { value, unit } = Object::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Strength { value, unit })
            }
        }
        input.deserialize_any(Form)
    }
}

impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Vector::Values(values) => values.serialize(out),
            Vector::File { file, shift } => {
                let mut object = out.serialize_map(None)?;
                object.serialize_entry("file", file)?;
                if *shift != 0 {
                    object.serialize_entry("shift", shift)?;
                }
                object.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            file: PathBuf,
            #[serde(default)]
            shift: i32,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Vector;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a vector: a list of numbers, or {\"file\": \"….gguf\"}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Vector, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Vector::Values(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Vector, A::Error> {
                let Object { file, shift } = Object::deserialize(MapAccessDeserializer::new(map))?;
                if file == Path::new("") {
                    return Err(A::Error::custom("`file` is empty"));
                }
                Ok(Vector::File { file, shift })
            }
        }
        input.deserialize_any(Form)
    }
}

impl Serialize for Sequences {
    fn serialize<S: Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Sequences::All => out.serialize_str("all"),
            Sequences::Only(ids) => ids.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for Sequences {
    fn deserialize<D: Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Sequences;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"all\" or a list of sequence ids")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Sequences, E> {
                match text {
                    "all" => Ok(Sequences::All),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Sequences, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = list.next_element()? {
                    ids.push(id);
                }
                Ok(Sequences::Only(ids))
            }
        }
        input.deserialize_any(Form)
    }
}
