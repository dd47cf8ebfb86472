//! Sizes as the JVM and Spark write them: `512m`, `2g`, a bare number of bytes.

/// The units and how often 2 is to be multiplied for them.
const UNITS: &[(&str, u32)] = &[
    ("", 0),
    ("b", 0),
    ("k", 10),
    ("kb", 10),
    ("m", 20),
    ("mb", 20),
    ("g", 30),
    ("gb", 30),
    ("t", 40),
    ("tb", 40),
    ("p", 50),
    ("pb", 50),
];

/// The whole MiB in a size; none if it is no size.
pub(super) fn mib_of(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_lowercase();
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let bytes = u128::from(number.parse::<u64>().ok()?) << shift;
    u64::try_from(bytes >> 20).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_two_and_a_bare_number_is_bytes() {
        for (text, mib) in [
            ("512m", 512),
            ("512MB", 512),
            ("2g", 2048),
            ("1t", 1 << 20),
            ("1p", 1 << 30),
            ("1048576", 1),
            ("1048576b", 1),
            ("2048k", 2),
            ("1024", 0),
            ("18446744073709551615", (1 << 44) - 1),
        ] {
            assert_eq!(mib_of(text), Some(mib), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_none() {
        for text in [
            "",
            "g",
            "1.5g",
            "-1g",
            "1 g",
            "1gg",
            "one",
            "18446744073709551616",
            "1é",
            "+1g",
        ] {
            assert_eq!(mib_of(text), None, "{text}");
        }
        // More than there are numbers for.
        assert_eq!(mib_of("18446744073709551615p"), None);
    }
}
