//! The rules for names, ids and addresses. Commands, rows and flags are checked by the same ones.
//!
//! Names end up in xDS resources, in rows and on command lines, so they are DNS labels: short, of
//! one case, and free of the `/` that separates the parts of a resource's name.

use std::net::SocketAddr;

use thiserror::Error;

/// Names that the mesh itself uses for a resource or a namespace. All other names of its own
/// contain a `/`.
const RESERVED: [&str; 3] = ["disco", "ingress", "ingress-kv"];

/// Why a name is invalid, and what a valid one looks like.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unfit(String);

const MAX_LABEL: usize = 63;
const MAX_ID: usize = 128;
const MAX_HOST_NAME: usize = 253;
const MAX_METADATA: usize = 64;
const MAX_METADATA_VALUE: usize = 1024;

/// Whether a service or a namespace may have this name.
pub fn may_be_registered(name: &str) -> bool {
    check_name("service", name).is_ok()
}

/// Checks the name of a service or a namespace; `what` says which.
pub fn check_name(what: &str, name: &str) -> Result<(), Unfit> {
    if name.is_empty() {
        return Err(Unfit(format!("the {what} has no name")));
    }
    if name.contains('/') {
        return Err(Unfit(format!(
            "{what} {name:?}: '/' is kept for the names of the mesh itself, such as kv/… and \
             sidecar/…"
        )));
    }
    if name.len() > MAX_LABEL || !is_label(name, |byte| byte == b'-') {
        return Err(Unfit(format!(
            "{what} {name:?}: a name has 1 to {MAX_LABEL} of a-z, 0-9 and '-', and begins and \
             ends with a letter or digit"
        )));
    }
    if RESERVED.contains(&name) {
        return Err(Unfit(format!("{what} {name:?}: this name is kept for the mesh itself")));
    }
    Ok(())
}

/// Checks an instance's id, which may also be made of a host name or an address.
pub fn check_id(id: &str) -> Result<(), Unfit> {
    if id.len() > MAX_ID || !is_label(id, |byte| matches!(byte, b'-' | b'.' | b'_' | b':')) {
        return Err(Unfit(format!(
            "instance id {id:?}: an id has 1 to {MAX_ID} of a-z, 0-9, '-', '.', '_' and ':', and \
             begins and ends with a letter or digit"
        )));
    }
    Ok(())
}

/// Checks a free label: a host's name, a zone, a version. It may be empty.
pub fn check_label(what: &str, label: &str) -> Result<(), Unfit> {
    if label.len() > MAX_HOST_NAME || !label.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Unfit(format!(
            "{what} {label:?}: at most {MAX_HOST_NAME} printable ASCII characters"
        )));
    }
    Ok(())
}

pub fn check_metadata<'a>(
    metadata: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
) -> Result<(), Unfit> {
    if metadata.len() > MAX_METADATA {
        return Err(Unfit(format!("at most {MAX_METADATA} metadata entries")));
    }
    for (key, value) in metadata {
        if key.is_empty() || key.len() > MAX_ID || value.len() > MAX_METADATA_VALUE {
            return Err(Unfit(format!(
                "metadata {key:?}: a key has 1 to {MAX_ID} bytes, a value up to \
                 {MAX_METADATA_VALUE}"
            )));
        }
    }
    Ok(())
}

/// Parses an address that others can dial.
pub fn parse_address(what: &str, text: &str) -> Result<SocketAddr, Unfit> {
    let address: SocketAddr = text.parse().map_err(|_| {
        Unfit(format!("{what} {text:?}: an address is IP:PORT, or [IP]:PORT for IPv6"))
    })?;
    let scoped = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
    if address.ip().is_unspecified() || address.ip().is_multicast() || scoped {
        return Err(Unfit(format!("{what} {text:?}: others cannot dial this IP")));
    }
    if address.port() == 0 {
        return Err(Unfit(format!("{what} {text:?}: the port is missing")));
    }
    Ok(address)
}

fn is_label(text: &str, inner: impl Fn(u8) -> bool) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    plain(*first) && plain(*last) && bytes.iter().all(|byte| plain(*byte) || inner(*byte))
}
