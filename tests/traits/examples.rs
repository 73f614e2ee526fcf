//! The examples in the documentation of public items.

use super::sources;

/// Whether the documentation above a line has an example.
fn has_example(before: &[&str]) -> bool {
    let documented = before.iter().rev().take_while(|line| {
        // Attributes may be between the documentation and the item, over several lines.
        !line.is_empty() && !line.ends_with(['}', ';'])
    });
    documented.into_iter().any(|line| line.starts_with("/// ```"))
}

#[test]
fn every_public_type_has_an_example() {
    let mut without = Vec::new();
    let mut count = 0;
    for text in sources() {
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let item = ["pub struct ", "pub enum ", "pub trait "].iter().find_map(|kind| line.strip_prefix(kind));
            let Some(name) = item.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next()) else { continue };
            count += 1;
            if !has_example(&lines[..at]) {
                without.push(name.to_owned());
            }
        }
    }
    assert!(count > 80, "{count}");
    assert!(without.is_empty(), "public types without an example: {without:?}");
}

#[test]
fn many_public_items_have_an_example() {
    let (mut items, mut with_example) = (0_u32, 0_u32);
    for text in sources() {
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(rest) = line.strip_prefix("pub ") else { continue };
            let rest = rest.trim_start_matches("const ").trim_start_matches("async ");
            let is_item = ["struct ", "enum ", "trait ", "fn "].iter().any(|kind| rest.starts_with(kind));
            if is_item && at > 0 && (lines[at - 1].starts_with("///") || lines[at - 1].starts_with("#[")) {
                items += 1;
                with_example += u32::from(has_example(&lines[..at]));
            }
        }
    }
    let percent = with_example * 100 / items;
    assert!(percent > 29, "{with_example} of {items} public items have an example: {percent} %");
}
