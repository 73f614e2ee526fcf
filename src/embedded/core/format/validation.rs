//! The problems of a request, in the words of the engine's validator.

use crate::model::name::is_name;

/// The problems of a request: the fields, and what is wrong with each.
#[derive(Default)]
pub(crate) struct Problems(Vec<(String, String)>);

impl Problems {
    pub(crate) fn add(&mut self, field: &str, problem: &str) {
        self.0.push((field.to_owned(), problem.to_owned()));
    }

    pub(crate) fn name(&mut self, field: &str, name: &str) {
        if name.is_empty() {
            self.add(field, "on condition 'required'");
        } else if !is_name(name) {
            self.add(field, "Hatchet names must match the regex ^[a-zA-Z0-9\\.\\-_]+$");
        }
    }

    pub(crate) fn range(&mut self, field: &str, number: i32, min: i32, max: i32) {
        if number < min {
            self.add(field, &format!("on condition 'min' [ {min} ]: got invalid type"));
        } else if number > max {
            self.add(field, &format!("on condition 'max' [ {max} ]: got invalid type"));
        }
    }

    /// The text of a rejection, unless there are no problems. `of` is the name of the request's type.
    pub(crate) fn message(self, of: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let start = String::from("Validation failed with the following errors:\n");
        Some(self.0.iter().enumerate().fold(start, |text, (number, (field, problem))| {
            text + &format!("{number}: validation failed on field '{of}.{field}': {problem}\n")
        }))
    }
}
