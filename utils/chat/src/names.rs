//! Who is called what: each name once.

use std::collections::BTreeMap;

use crate::limits::NAME_SIZE_MAX;

/// The names of those who have one, by the members' numbers and the other way round.
#[derive(Default, Debug)]
pub struct Names {
    members: BTreeMap<String, u64>,
    names: BTreeMap<u64, String>,
}

/// What has come of a wish.
#[derive(PartialEq, Eq, Debug)]
pub struct Given {
    /// What the member is called now.
    pub name: String,
    /// What it was called before, where that was something else: nobody is any more.
    pub freed: Option<String>,
}

impl Names {
    /// Gives a member the name that it wants; where it is another's, with a number behind it. Long ones are cut.
    pub fn give(&mut self, member: u64, wanted: &str) -> Given {
        let is_free = |name: &str| self.members.get(name).is_none_or(|owner| *owner == member);
        let plain = cut(wanted, NAME_SIZE_MAX).to_owned();
        // There are more numbers than members.
        let numbered = (1..=self.members.len() + 1).map(|number| {
            let number = format!("{number:03}");
            format!("{}{number}", cut(wanted, NAME_SIZE_MAX - number.len()))
        });
        let name = std::iter::once(plain).chain(numbered).find(|name| is_free(name)).unwrap_or_default();
        let freed = self.names.insert(member, name.clone()).filter(|before| *before != name);
        if let Some(before) = &freed {
            self.members.remove(before);
        }
        self.members.insert(name.clone(), member);
        Given { name, freed }
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<u64> {
        self.members.get(name).copied()
    }

    /// Frees the name of a member who leaves, if it had one.
    pub fn free(&mut self, member: u64) -> Option<String> {
        let name = self.names.remove(&member)?;
        self.members.remove(&name);
        Some(name)
    }
}

/// So many bytes at most, whole characters.
fn cut(name: &str, size_max: usize) -> &str {
    &name[..name.floor_char_boundary(size_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(names: &mut Names, member: u64, wanted: &str) -> String {
        names.give(member, wanted).name
    }

    #[test]
    fn each_name_once() {
        let mut names = Names::default();
        assert_eq!(give(&mut names, 1, "alice"), "alice");
        assert_eq!(give(&mut names, 2, "alice"), "alice001");
        assert_eq!(give(&mut names, 3, "alice"), "alice002");
        // Whose own name looks like one with a number.
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
    fn another_name() {
        let mut names = Names::default();
        names.give(1, "alice");
        assert_eq!(names.give(1, "alice"), Given { name: "alice".to_owned(), freed: None });
        assert_eq!(names.give(1, "eve"), Given { name: "eve".to_owned(), freed: Some("alice".to_owned()) });
        assert_eq!((names.member("alice"), names.member("eve")), (None, Some(1)));
        assert_eq!(give(&mut names, 2, "alice"), "alice");
    }

    #[test]
    fn long_names_are_cut_and_differ_still() {
        let (mut names, long) = (Names::default(), "\u{e9}".repeat(NAME_SIZE_MAX));
        let mut seen = std::collections::BTreeSet::new();
        for member in 0..1_200 {
            let name = give(&mut names, member, &long);
            assert!(name.len() <= NAME_SIZE_MAX && seen.insert(name.clone()), "{member}: {name}");
        }
    }
}
