//! The parents of a task.

use self::sealed::Sealed;
use super::task::Task;
use crate::model::task_name::{self, TaskName};

impl<I, O> task_name::sealed::Sealed for Task<I, O> {}

impl<I, O> TaskName for Task<I, O> {
    fn task_name(&self) -> &str {
        self.name()
    }
}

/// The parents of a task: a [`Task`] or a name, a tuple of up to 8 of them, or an array, a slice or a `Vec`. This trait is sealed.
///
/// ```
/// use hatchet::{Context, Task, Workflow};
///
/// let reserve = Task::new("reserve", async |(): (), _: Context| Ok("shelf 7".to_owned()));
/// let charge = Task::new("charge", async |(): (), _: Context| Ok(12.5));
/// let ship = Task::new("ship", async |(): (), _: Context| Ok(()));
/// let flow = Workflow::<()>::new("order").task(&reserve).task(&charge);
///
/// let by_task = flow.clone().task_after(&ship, (&reserve, &charge));
/// let by_name = flow.task_after(&ship, ["reserve", "charge"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name any tasks",
    note = "use a task (`&task`), a name (`\"name\"`), a tuple of up to 8 of them, or an array, a slice or a `Vec` of one type"
)]
pub trait Parents: Sealed {
    /// Returns the names of the tasks, in the given order.
    #[doc(hidden)]
    fn names(self) -> Vec<String>;
}

/// Seals the trait.
mod sealed {
    /// Implemented by this module only.
    pub trait Sealed {}
}

impl<T: TaskName> Sealed for T {}
impl<T: TaskName> Parents for T {
    fn names(self) -> Vec<String> {
        vec![self.task_name().to_owned()]
    }
}

impl<T: TaskName, const N: usize> Sealed for [T; N] {}
impl<T: TaskName, const N: usize> Parents for [T; N] {
    fn names(self) -> Vec<String> {
        of_slice(&self)
    }
}

impl<T: TaskName> Sealed for &[T] {}
impl<T: TaskName> Parents for &[T] {
    fn names(self) -> Vec<String> {
        of_slice(self)
    }
}

impl<T: TaskName, const N: usize> Sealed for &[T; N] {}
impl<T: TaskName, const N: usize> Parents for &[T; N] {
    fn names(self) -> Vec<String> {
        of_slice(self)
    }
}

impl<T: TaskName> Sealed for Vec<T> {}
impl<T: TaskName> Parents for Vec<T> {
    fn names(self) -> Vec<String> {
        of_slice(&self)
    }
}

impl<T: TaskName> Sealed for &Vec<T> {}
impl<T: TaskName> Parents for &Vec<T> {
    fn names(self) -> Vec<String> {
        of_slice(self)
    }
}

fn of_slice<T: TaskName>(tasks: &[T]) -> Vec<String> {
    tasks.iter().map(|task| task.task_name().to_owned()).collect()
}

/// Implements the trait for tuples.
macro_rules! tuples {
    ($(($($name:ident),+))+) => {
        $(
            impl<$($name: TaskName),+> Sealed for ($($name,)+) {}
            #[expect(non_snake_case, reason = "the variables have the names of their types")]
            impl<$($name: TaskName),+> Parents for ($($name,)+) {
                fn names(self) -> Vec<String> {
                    let ($($name,)+) = self;
                    vec![$($name.task_name().to_owned()),+]
                }
            }
        )+
    };
}

tuples! {
    (A)
    (A, B)
    (A, B, C)
    (A, B, C, D)
    (A, B, C, D, E)
    (A, B, C, D, E, F)
    (A, B, C, D, E, F, G)
    (A, B, C, D, E, F, G, H)
}

#[cfg(test)]
mod tests {
    use super::super::Context;
    use super::*;

    #[test]
    fn tasks_and_names_are_parents() {
        let number = Task::new("number", async |(): (), _: Context| Ok(1));
        let other = Task::new("other", async |(): (), _: Context| Ok(2));
        let text: Task<(), String> = Task::new("text", async |(): (), _: Context| Ok(String::new()));
        assert_eq!((&number).names(), ["number"]);
        assert_eq!("text".names(), ["text"]);
        assert_eq!(String::from("text").names(), ["text"]);
        assert_eq!((&number, &text, "a", String::from("b")).names(), ["number", "text", "a", "b"]);
        assert_eq!([&number, &number].names(), ["number", "number"]);
        assert_eq!(vec!["a".to_owned(), "b".to_owned()].names(), ["a", "b"]);
        assert_eq!((&vec!["a"]).names(), ["a"]);
        assert_eq!((&["a", "b"][..]).names(), ["a", "b"]);
        assert_eq!((&["a"]).names(), ["a"]);
        drop(other);
        assert_eq!((&number, &number, &text, "a", "b", "c", "d", "e").names().len(), 8);
    }
}
