//! What names a task of a workflow.

use self::sealed::Sealed;

/// Seals the traits about names of tasks.
pub(crate) mod sealed {
    /// Implemented by this crate only.
    pub trait Sealed {}
}

/// A reference to a task of a workflow: a [`Task`](crate::Task), or its name.
///
/// This trait is sealed.
///
/// ```
/// use hatchet::workflow::{Condition, TaskName};
/// use hatchet::{Context, Task};
///
/// let check = Task::new("check", async |(): (), _: Context| Ok(true));
/// let by_task = Condition::parent(&check, "output._value");
/// let by_name = Condition::parent("check", "output._value");
/// assert_eq!(by_task, by_name);
/// assert_eq!((&check).task_name(), "check".task_name());
/// ```
pub trait TaskName: Sealed {
    /// Returns the name by which the workflow and its conditions refer to the task.
    fn task_name(&self) -> &str;
}

impl Sealed for str {}
impl Sealed for String {}
impl<T: Sealed + ?Sized> Sealed for &T {}

impl TaskName for str {
    fn task_name(&self) -> &str {
        self
    }
}

impl TaskName for String {
    fn task_name(&self) -> &str {
        self
    }
}

impl<T: TaskName + ?Sized> TaskName for &T {
    fn task_name(&self) -> &str {
        (**self).task_name()
    }
}
