//! Names of users and groups that tokens, databases and servers give.

use crate::limits::GROUP_SIZE_MAX;
use crate::users::check_name;

/// Whether this can be the name of a user: not empty, without spaces around it and control characters.
pub(crate) fn is_user(name: &str) -> bool {
    name.trim() == name && check_name(name).is_ok()
}

/// Whether this can be the name of a group: as of a user, but without commas, which separate groups.
pub(crate) fn is_group(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= GROUP_SIZE_MAX
        && name.trim() == name
        && !name.contains(|character: char| character.is_control() || character == ',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::USER_SIZE_MAX;

    #[test]
    fn names_are_checked() {
        for (name, user, group) in [
            ("alice", true, true),
            ("auth0|5f7c", true, true),
            ("Ren\u{e9}e Dupont", true, true),
            ("a,b", true, false),
            ("", false, false),
            (" alice", false, false),
            ("alice\n", false, false),
            ("al\0ice", false, false),
            ("al\u{85}ice", false, false),
        ] {
            assert_eq!((is_user(name), is_group(name)), (user, group), "{name:?}");
        }
        assert!(is_user(&"x".repeat(USER_SIZE_MAX)) && !is_user(&"x".repeat(USER_SIZE_MAX + 1)));
        assert!(is_group(&"x".repeat(GROUP_SIZE_MAX)) && !is_group(&"x".repeat(GROUP_SIZE_MAX + 1)));
    }
}
