//! Texts with a form of their own: durations (`30s`), sizes (`10MiB`), rates (`30/m`), addresses, networks, origins.
//!
//! Each form is defined once, in [`FORMS`]: the pattern that editors see, the sentence that people see, and the
//! parser that both the check of the file and serde use. Read at start only.

use crate::protocol::origin::PublicUrl;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A form that a text in the config may have to take.
#[derive(Debug)]
pub struct Form {
    /// Its name: the value of `x-form` in the schema.
    pub name: &'static str,
    /// What is wanted, for people: "a duration such as 30s".
    pub wanted: &'static str,
    /// What is wanted, for editors; the parser has the last word.
    pub pattern: &'static str,
    /// A text of this form, to go on checking with after a mistake.
    pub stand_in: &'static str,
    /// Whether a text has the form; if not, what is wrong with it, without repeating it.
    pub check: fn(&str) -> Result<(), String>,
}

/// All forms.
pub static FORMS: [Form; 6] = [
    Form {
        name: "duration",
        wanted: "a duration such as 250ms, 30s, 15m, 12h or 7d",
        pattern: "^[0-9]+(ms|s|m|h|d)$",
        stand_in: "1s",
        check: |text| parse_duration(text).map(drop),
    },
    Form {
        name: "size",
        wanted: "a size such as 512B, 64KiB, 10MiB or 1GiB",
        pattern: "^[0-9]+(B|KiB|MiB|GiB)$",
        stand_in: "1KiB",
        check: |text| parse_size(text).map(drop),
    },
    Form {
        name: "rate",
        wanted: "a rate such as 5/s, 30/m or 100/h, or off",
        pattern: "^(off|[1-9][0-9]*/[smh])$",
        stand_in: "off",
        check: |text| parse_rate(text).map(drop),
    },
    Form {
        name: "address",
        wanted: "an IP address and a port such as 0.0.0.0:8080 or \"[::]:8080\"",
        pattern: "^.+:[0-9]+$",
        stand_in: "127.0.0.1:0",
        check: |text| parse_address(text).map(drop),
    },
    Form {
        name: "network",
        wanted: "an IP network such as 10.0.0.0/8 or fd00::/8, or one IP address",
        pattern: "^[0-9a-fA-F.:]+(/[0-9]+)?$",
        stand_in: "127.0.0.1/32",
        check: |text| parse_network(text).map(drop),
    },
    Form {
        name: "origin",
        wanted: "an origin such as https://app.example.com",
        pattern: "^[hH][tT][tT][pP][sS]?://[^/?#@]+/?$",
        stand_in: "https://stand-in.invalid",
        check: |text| PublicUrl::parse(text).map(drop),
    },
];

/// Marks a field's schema as a text of one form.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $form:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let pattern = FORMS.iter().find(|form| form.name == $form).map(|form| form.pattern);
                json_schema!({ "type": "string", "pattern": pattern, "x-form": $form })
            }
        }
    )+};
}

texts! {
    /// The schema of a duration: `250ms`, `30s`, `15m`, `12h`, `7d`.
    DurationText = "duration";
    /// The schema of a size: `512B`, `64KiB`, `10MiB`, `1GiB`.
    SizeText = "size";
    /// The schema of a rate: `30/m` or `off`.
    RateText = "rate";
    /// The schema of an address with a port.
    AddressText = "address";
    /// The schema of a network.
    NetworkText = "network";
    /// The schema of an origin.
    OriginText = "origin";
}

/// So many in a span of time: `30/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// The units of durations, largest first, in milliseconds.
const SPANS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
/// A hundred years: more is a typing mistake, and near it the clock's arithmetic would overflow.
const LONGEST_MILLIS: u64 = 36_500 * 86_400_000;
/// The units of sizes, largest first, in bytes.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Digits, then one of the units; `what` for the message.
fn number_with_unit(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("is no {what}"));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let missing = if unit.is_empty() {
            "has no unit"
        } else {
            "has an unknown unit"
        };
        return Err(missing.into());
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| "is too large".into())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match number_with_unit(text, &SPANS, "duration")? {
        millis if millis > LONGEST_MILLIS => Err("is more than a hundred years".into()),
        millis => Ok(Duration::from_millis(millis)),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    number_with_unit(text, &SIZES, "size")
}

fn parse_rate(text: &str) -> Result<Option<Rate>, String> {
    if text == "off" {
        return Ok(None);
    }
    let (count, per) = text.split_once('/').ok_or("is no rate")?;
    let secs = match per {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("is not per s, m or h".into()),
    };
    // `+30` would parse as a number.
    if !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err("does not begin with a number".into());
    }
    match count.parse() {
        Ok(0) => Err("would let nobody in".into()),
        Ok(count) => Ok(Some(Rate {
            count,
            per: Duration::from_secs(secs),
        })),
        Err(_) => Err("does not begin with a sensible number".into()),
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is no IP address with a port".into())
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "is no network".into())
}

/// `value` in the largest unit that divides it.
fn in_units(value: u64, units: &[(&str, u64)]) -> String {
    let fits = units
        .iter()
        .find(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    match fits {
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => format!("0{}", if units == SPANS { "s" } else { "B" }),
    }
}

/// serde for durations; written only into the schema's defaults.
pub mod duration {
    use super::{Deserialize, Deserializer, Duration, Error, SPANS, in_units, parse_duration};

    /// Reads `30s` and the like.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    /// Writes `30s` and the like.
    pub(in crate::config) fn serialize<S: serde::Serializer>(
        span: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        to.serialize_str(&in_units(millis, &SPANS))
    }
}

/// serde for sizes, in bytes; written only into the schema's defaults.
pub mod size {
    use super::{Deserialize, Deserializer, Error, SIZES, in_units, parse_size};

    /// Reads `64KiB` and the like.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        parse_size(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    /// Writes `64KiB` and the like.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(in crate::config) fn serialize<S: serde::Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&in_units(*bytes, &SIZES))
    }
}

/// Reads a size that may be missing, in bytes.
pub(super) fn optional_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| parse_size(&text).map_err(D::Error::custom))
        .transpose()
}

/// serde for rates; written only into the schema's defaults.
pub mod rate {
    use super::{Deserialize, Deserializer, Error, Rate, parse_rate};

    /// Reads `30/m` or `off`.
    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Rate>, D::Error> {
        parse_rate(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    /// Writes `30/m` or `off`.
    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in crate::config) fn serialize<S: serde::Serializer>(
        rate: &Option<Rate>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match rate {
            None => to.serialize_str("off"),
            Some(rate) => {
                let unit = match rate.per.as_secs() {
                    1 => "s",
                    60 => "m",
                    _ => "h",
                };
                to.serialize_str(&format!("{}/{unit}", rate.count))
            }
        }
    }
}

/// Reads networks; a bare address is a network of one.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts
        .iter()
        .map(|text| parse_network(text).map_err(D::Error::custom))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("15m", 900_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in [
            "",
            "s",
            "30",
            "30 s",
            "1.5h",
            "-1s",
            "+1s",
            "1h30m",
            "30S",
            "99999999999999999999s",
            "36501d",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_numbers_with_a_binary_unit() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("10MiB"), Ok(10_485_760));
        for wrong in [
            "",
            "10",
            "10MB",
            "10mib",
            "1.5MiB",
            "99999999999999999999B",
            "18446744073709551615KiB",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_so_many_in_a_span() {
        let thirty = Rate {
            count: 30,
            per: Duration::from_mins(1),
        };
        assert_eq!(parse_rate("30/m"), Ok(Some(thirty)));
        assert_eq!(parse_rate("off"), Ok(None));
        for wrong in [
            "",
            "30",
            "0/m",
            "30/d",
            "+3/m",
            "-1/s",
            "/m",
            "99999999999/s",
            "on",
        ] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        assert_eq!(parse_network("10.1.2.3"), Ok("10.1.2.3/32".parse().unwrap()));
        assert!(parse_network("10.0.0.0/33").is_err());
    }

    #[test]
    fn every_stand_in_has_its_form() {
        for form in &FORMS {
            assert_eq!((form.check)(form.stand_in), Ok(()), "{}", form.name);
        }
    }

    #[test]
    fn defaults_are_written_as_people_write_them() {
        assert_eq!(in_units(1_800_000, &SPANS), "30m");
        assert_eq!(in_units(90_000, &SPANS), "90s");
        assert_eq!(in_units(0, &SPANS), "0s");
        assert_eq!(in_units(32_768, &SIZES), "32KiB");
    }
}
