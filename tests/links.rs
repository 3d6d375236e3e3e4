//! Names that are served by something else than a socket in docroot.
use crate::daemon::Daemon;
use crate::process::Folder;

/// A daemon whose configuration has this in `websocket`; "@" stands for its folder.
pub fn configured(websocket: &str) -> Daemon {
    configured_in(Folder::new(), websocket)
}

/// As `configured`, in a folder in which something lies already.
pub fn configured_in(folder: Folder, websocket: &str) -> Daemon {
    let text = format!("servers = ({{ websocket = {{ {} }}; }});", websocket.replace('@', &folder.join("")));
    let path = folder.join("uakari.conf");
    std::fs::write(&path, text).unwrap();
    Daemon::start_in(folder, &["-f", &path])
}
