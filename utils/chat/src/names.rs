//! Names of members, each given once.

use crate::limits::NAME_SIZE_MAX;
use std::collections::BTreeMap;

/// Names by member and members by name.
#[derive(Default)]
pub(crate) struct Names {
    members: BTreeMap<String, u64>,
    names: BTreeMap<u64, String>,
}

/// Result of [`Names::give`].
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Given {
    /// The member's name now.
    pub(crate) name: String,
    /// Its previous name, if it differs. It is free now.
    pub(crate) freed: Option<String>,
}

impl Names {
    /// Gives a member the wanted name, truncated to `NAME_SIZE_MAX`, with a number appended if another member has it.
    pub(crate) fn give(&mut self, member: u64, wanted: &str) -> Given {
        let is_free = |name: &str| self.members.get(name).is_none_or(|owner| *owner == member);
        let plain = truncated(wanted, NAME_SIZE_MAX).to_owned();
        // One number more than there are names, so that one is free.
        let numbered = (1..=self.members.len() + 1).map(|number| {
            let number = format!("{number:03}");
            format!("{}{number}", truncated(wanted, NAME_SIZE_MAX - number.len()))
        });
        let name = std::iter::once(plain).chain(numbered).find(|name| is_free(name)).unwrap_or_default();
        let freed = self.names.insert(member, name.clone()).filter(|before| *before != name);
        if let Some(before) = &freed {
            self.members.remove(before);
        }
        self.members.insert(name.clone(), member);
        Given { name, freed }
    }

    pub(crate) fn member(&self, name: &str) -> Option<u64> {
        self.members.get(name).copied()
    }

    /// Frees a member's name and returns it. None: it had none.
    pub(crate) fn free(&mut self, member: u64) -> Option<String> {
        let name = self.names.remove(&member)?;
        self.members.remove(&name);
        Some(name)
    }
}

/// At most `size_max` bytes, without splitting a character.
fn truncated(name: &str, size_max: usize) -> &str {
    &name[..name.floor_char_boundary(size_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(names: &mut Names, member: u64, wanted: &str) -> String {
        names.give(member, wanted).name
    }

    #[test]
    fn names_are_unique() {
        let mut names = Names::default();
        assert_eq!(give(&mut names, 1, "alice"), "alice");
        assert_eq!(give(&mut names, 2, "alice"), "alice001");
        assert_eq!(give(&mut names, 3, "alice"), "alice002");
        // A wanted name may look like one with a number.
        assert_eq!(give(&mut names, 4, "bob001"), "bob001");
        assert_eq!(give(&mut names, 5, "bob"), "bob");
        assert_eq!(give(&mut names, 6, "bob"), "bob002");
        assert_eq!(give(&mut names, 7, "bob001"), "bob001001");
        assert_eq!(names.member("alice001"), Some(2));
        assert_eq!(names.member("carol"), None);
        // A gap is filled again.
        assert_eq!(names.free(2).as_deref(), Some("alice001"));
        assert_eq!((names.free(2), names.member("alice001")), (None, None));
        assert_eq!(give(&mut names, 8, "alice"), "alice001");
    }

    #[test]
    fn a_member_changes_its_name() {
        let mut names = Names::default();
        names.give(1, "alice");
        assert_eq!(names.give(1, "alice"), Given { name: "alice".to_owned(), freed: None });
        assert_eq!(names.give(1, "eve"), Given { name: "eve".to_owned(), freed: Some("alice".to_owned()) });
        assert_eq!((names.member("alice"), names.member("eve")), (None, Some(1)));
        assert_eq!(give(&mut names, 2, "alice"), "alice");
    }

    #[test]
    fn long_names_are_truncated_and_stay_unique() {
        let (mut names, long) = (Names::default(), "\u{e9}".repeat(NAME_SIZE_MAX));
        let mut seen = std::collections::BTreeSet::new();
        for member in 0..1_200 {
            let name = give(&mut names, member, &long);
            assert!(name.len() <= NAME_SIZE_MAX && seen.insert(name.clone()), "{member}: {name}");
        }
    }
}
