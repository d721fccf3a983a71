//! The names that a client asked for.

use crate::resource::Name;

/// Names in order. It takes a pointer for each, since a client may ask for thousands and there may
/// be thousands of clients.
#[derive(Debug, Default)]
pub(super) struct NameSet(Vec<Name>);

impl NameSet {
    /// Adds names that come in order and each once.
    pub(super) fn extend(&mut self, mut names: Vec<Name>) {
        debug_assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
        if self.0.is_empty() {
            names.shrink_to_fit();
            self.0 = names;
            return;
        }
        for name in names {
            if let Err(at) = self.position(&name) {
                self.0.insert(at, name);
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Name> {
        let at = self.position(name).ok()?;
        let name = self.0.remove(at);
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(name)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Name> {
        self.position(name).ok().map(|at| &self.0[at])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|it| it.as_str().cmp(name))
    }
}
