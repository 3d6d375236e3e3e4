//! Files of users: htpasswd(1)'s lines `USER:HASH`, and ouistiti's rows `USER:PASSWD:GROUPS[:HOME]`, whose password may be
//! clear text. A hash without a group that htpasswd(1) does not make is an error: it would be a password by itself if it
//! were taken for clear text.

use std::collections::HashMap;

use crate::identity::Identity;
use crate::limits::{GROUP_SIZE_MAX, GROUPS_MAX, PROBLEMS_MAX, USER_SIZE_MAX, USERS_MAX};
use crate::passwords::Stored;

/// A user's password and groups.
#[derive(Clone, Debug)]
pub struct User {
    /// The password.
    pub stored: Stored,
    /// Who it is.
    pub identity: Identity,
}

/// The users of a file.
#[derive(Debug, Default)]
pub struct Users {
    users: HashMap<String, User>,
}

impl Users {
    /// Reads the text of a file. Returns warnings too. Both those and the errors are the operator's sentences, with line
    /// numbers, but without the file's name.
    pub fn parse(text: &str) -> Result<(Users, Vec<String>), Vec<String>> {
        let (mut users, mut warnings, mut problems) = (HashMap::new(), Vec::new(), Vec::new());
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let number = at + 1;
            if problems.len() == PROBLEMS_MAX {
                problems.push("and possibly more".to_owned());
                break;
            }
            if users.len() == USERS_MAX {
                problems.push(format!("line {number}: there are more than {USERS_MAX} users"));
                break;
            }
            match user_of(line) {
                Ok(user) => {
                    let name = user.identity.user.clone();
                    if let Some(weakness) = user.stored.weakness() {
                        warnings.push(format!("line {number}: the password of {name} {weakness}"));
                    }
                    if users.insert(name.clone(), user).is_some() {
                        problems.push(format!("line {number}: {name} is there twice"));
                    }
                }
                Err(sentence) => problems.push(format!("line {number}: {sentence}")),
            }
        }
        if problems.is_empty() { Ok((Users { users }, warnings)) } else { Err(problems) }
    }

    /// The user of this name.
    pub fn find(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The password whose verification takes longest.
    pub fn dearest(&self) -> Option<&Stored> {
        self.users.values().map(|user| &user.stored).max_by_key(|stored| stored.work_us())
    }

    /// The number of users.
    pub fn count(&self) -> usize {
        self.users.len()
    }
}

/// Checks a name of a user. The error is a sentence that does not contain it.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the user's name is empty".to_owned());
    }
    if name.len() > USER_SIZE_MAX {
        return Err(format!("the user's name exceeds {USER_SIZE_MAX} bytes"));
    }
    if name.contains(char::is_control) {
        return Err("the user's name has a control character".to_owned());
    }
    Ok(())
}

/// The groups of a list with commas.
pub fn groups_of(list: &str) -> Result<Vec<String>, String> {
    let groups: Vec<String> =
        list.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect();
    if groups.len() > GROUPS_MAX {
        return Err(format!("there are more than {GROUPS_MAX} groups"));
    }
    if groups.iter().any(|group| group.len() > GROUP_SIZE_MAX || group.contains(char::is_control)) {
        return Err(format!("a group's name exceeds {GROUP_SIZE_MAX} bytes or has a control character"));
    }
    Ok(groups)
}

/// The error never has a part of a line that might be a password.
fn user_of(line: &str) -> Result<User, String> {
    let fields: Vec<&str> = line.split(':').collect();
    let (name, passwd, is_row, groups, home) = match fields[..] {
        [name, passwd] => (name, passwd, false, "", ""),
        [name, passwd, groups] => (name, passwd, true, groups, ""),
        [name, passwd, groups, home] => (name, passwd, true, groups, home),
        _ => return Err("is neither USER:HASH nor USER:PASSWD:GROUPS[:HOME]".to_owned()),
    };
    check_name(name)?;
    let stored = if is_row { Stored::parse_row(passwd) } else { Stored::parse(passwd) };
    let stored = stored.map_err(|sentence| format!("the password of {name} {sentence}"))?;
    let identity =
        Identity { user: name.to_owned(), groups: groups_of(groups)?, home: home.to_owned(), until_ms: None };
    Ok(User { stored, identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "{SHA}IONDKY6crD6BvscPCv+LP42WUMo=";
    const APR1: &str = "$apr1$saltsalt$8bATevyqVlR2ysK6y9Drd.";
    const PASSWORD: &str = "pa55w\u{f6}rd x";

    #[test]
    fn lines_of_both_forms() {
        let text = format!(
            "# users\n\n  \nann:{SHA}\r\nbob:{APR1}\ncy:{PASSWORD}:admin, ops,:/home/cy\ndi:*:users\n\u{e4}:{SHA}:\n"
        );
        let (users, warnings) = Users::parse(&text).unwrap();
        assert_eq!(users.count(), 5);
        for (name, groups, home, is_enabled) in [
            ("ann", &[][..], "", true),
            ("bob", &[], "", true),
            ("cy", &["admin", "ops"], "/home/cy", true),
            ("di", &["users"], "", false),
            ("\u{e4}", &[], "", true),
        ] {
            let user = users.find(name).unwrap();
            assert_eq!(user.identity.groups, groups, "{name}");
            assert_eq!((user.identity.user.as_str(), user.identity.home.as_str()), (name, home));
            assert_eq!(user.stored.verify(name, PASSWORD), is_enabled, "{name}");
        }
        assert!(users.find("eve").is_none() && users.find("").is_none());
        assert_eq!(users.dearest(), Some(&users.find("bob").unwrap().stored));
        assert_eq!(
            warnings,
            [
                "line 4: the password of ann has a weak hash: one round of SHA-1",
                "line 5: the password of bob has a weak hash: $apr1$",
                "line 6: the password of cy is in clear text",
                "line 8: the password of \u{e4} has a weak hash: one round of SHA-1",
            ]
        );
        assert!(Users::parse("").unwrap().0.dearest().is_none());
    }

    #[test]
    fn problems_name_the_line_and_no_password() {
        let long = "x".repeat(USER_SIZE_MAX + 1);
        let groups = vec!["g"; GROUPS_MAX + 1].join(",");
        for (text, expected) in [
            ("ann".to_owned(), "line 1: is neither USER:HASH nor USER:PASSWD:GROUPS[:HOME]"),
            ("ann:geheim:a:b:c".to_owned(), "line 1: is neither USER:HASH nor USER:PASSWD:GROUPS[:HOME]"),
            (
                "ann:geheim".to_owned(),
                "line 1: the password of ann is neither a hash of a known kind nor in a row with a group",
            ),
            (format!("\n:{SHA}"), "line 2: the user's name is empty"),
            (format!("{long}:{SHA}"), "line 1: the user's name exceeds 255 bytes"),
            (format!("a\tb:{SHA}"), "line 1: the user's name has a control character"),
            (format!("ann:{SHA}\nbob:{SHA}\nann:{APR1}"), "line 3: ann is there twice"),
            (format!("ann:{SHA}:{groups}"), "line 1: there are more than 64 groups"),
            (format!("ann:{SHA}:{long}"), "line 1: a group's name exceeds 255 bytes or has a control character"),
        ] {
            let problems = Users::parse(&text).unwrap_err();
            assert_eq!(problems, [expected], "{text}");
        }
    }

    #[test]
    fn long_files() {
        let lines = |count| (0..count).map(|number| format!("u{number}:*\n")).collect::<String>();
        assert_eq!(Users::parse(&lines(USERS_MAX)).unwrap().0.count(), USERS_MAX);
        let problems = Users::parse(&lines(USERS_MAX + 1)).unwrap_err();
        assert_eq!(problems, ["line 10001: there are more than 10000 users"]);
        let problems = Users::parse(&"geheim\n".repeat(1_000)).unwrap_err();
        assert_eq!(problems.len(), PROBLEMS_MAX + 1);
        assert_eq!(problems.last().unwrap(), "and possibly more");
    }
}
