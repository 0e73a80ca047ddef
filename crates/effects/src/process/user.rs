//! Operating-system users: whom a program runs as.

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::sys;

/// A user of the operating system with all groups, as programs are started under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All group ids, the primary one among them.
    pub groups: Vec<u32>,
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

impl OsUser {
    /// Looks a user up by name (`getpwnam_r(3)` and `getgrouplist(3)`, so LDAP and the like are asked too). `None` when
    /// there is none. May block on such a directory: do it at start-up, not in a decision.
    ///
    /// # Errors
    /// When the user database cannot be read.
    pub fn lookup(name: &str) -> io::Result<Option<Self>> {
        sys::user_by_name(name)?.map(Self::from_row).transpose()
    }

    /// The user we run as, looked up once.
    ///
    /// # Errors
    /// When the user database cannot be read. A number without a row in it is fine (containers).
    pub fn current() -> io::Result<Self> {
        static CURRENT: OnceLock<OsUser> = OnceLock::new();
        if let Some(user) = CURRENT.get() {
            return Ok(user.clone());
        }
        let user = Self::look_at_ourselves()?;
        Ok(CURRENT.get_or_init(|| user).clone())
    }

    fn look_at_ourselves() -> io::Result<Self> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        match sys::user_by_id(uid)? {
            Some(row) => Self::from_row(row),
            None => Ok(Self { uid, gid, groups: vec![gid], name: uid.to_string(), home: PathBuf::from("/") }),
        }
    }

    /// Whether this is root.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    fn from_row(row: sys::UserRow) -> io::Result<Self> {
        let groups = sys::groups_of(&row.name, row.gid)?;
        Ok(Self { uid: row.uid, gid: row.gid, groups, name: row.name, home: PathBuf::from(row.home) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let root = OsUser::lookup("root").unwrap().expect("every Linux has root");
        assert_eq!((root.uid, root.gid, root.home), (0, 0, PathBuf::from("/root")));
        assert!(root.groups.contains(&0));
        assert_eq!(OsUser::lookup("no-such-user-here").unwrap(), None);
    }

    #[test]
    fn the_current_user_has_our_number() {
        assert_eq!(OsUser::current().unwrap().uid, rustix::process::geteuid().as_raw());
    }
}
