//! Amounts with a unit, as people write them: "2.5mbit", "200 MB".

/// Reads an amount of one of these units, each of which stands before those that it ends in. Letters count as lower case.
pub(super) fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let with = |(unit, size): &(&str, u64)| Some((lower.strip_suffix(&unit.to_ascii_lowercase())?, *size));
    let (amount, size) = units.iter().find_map(with)?;
    let amount = amount.trim();
    if !amount.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let amount: f64 = amount.parse().ok()?;
    // A cast of a float saturates.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((amount * size as f64).round() as u64)
}

/// Writes it in the largest of the units that it is a whole number of; the last has size 1.
pub(super) fn write(amount: u64, units: &[(&str, u64)]) -> String {
    let whole = units
        .iter()
        .find(|(_, size)| amount >= *size && amount.is_multiple_of(*size));
    let (unit, size) = whole.or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{unit}", amount / size)
}
