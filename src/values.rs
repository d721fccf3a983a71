//! Values as people write them in flags, environment and files, parsed into types.
//!
//! Addresses are IP:PORT only. A name would need a resolver at the very moment at which nothing
//! else works yet, so names are refused here and nowhere looked up.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

#[cfg(test)]
mod tests;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("`{0}` is a name, and Quorate resolves no names: give an address as IP:PORT")]
    Name(String),
    #[error("`{0}` has no port: give an address as IP:PORT")]
    NoPort(String),
    #[error("`{0}` is no address of the form IP:PORT")]
    Address(String),
    #[error("`{0}` is no duration: give it like 500ms, 8s or 2m")]
    Duration(String),
    #[error("`{0}` is not of the form KEY=VALUE")]
    Pair(String),
    #[error("`{0}` is not two ports, as in 8080,2379")]
    Ports(String),
    #[error("`{0}` is no check: use http://IP:PORT/PATH, http:/PATH, tcp, or grpc[:SERVICE]")]
    Check(String),
    #[error("`{0}` is no NAMESPACE@INDEX; the refusal of a server says which one to give")]
    Loss(String),
    #[error("`{0}` names an address twice")]
    Twice(String),
    #[error(
        "`{0}` is no name: use up to 128 letters, digits and `-_.`, beginning with a letter or digit"
    )]
    Label(String),
    #[error("{0}")]
    Unfit(#[from] xds::name::Unfit),
    #[error("a lease lasts 3s to 5m")]
    Ttl,
    #[error("`{0}` is not of the form PATH=VALUE, as in retries.attempts=3")]
    Option(String),
}

/// A list of addresses, comma separated; the empty text is the empty list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<SocketAddr>);

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, address) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

pub(crate) fn addresses(text: &str) -> Result<Addresses, ValueError> {
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = address(part)?;
        if !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(Addresses(all))
}

/// The same, where naming one twice is a mistake that must not pass.
pub(crate) fn distinct_addresses(text: &str) -> Result<Addresses, ValueError> {
    let named = text.split(',').filter(|part| !part.trim().is_empty()).count();
    let addresses = addresses(text)?;
    if addresses.0.len() == named { Ok(addresses) } else { Err(ValueError::Twice(text.to_owned())) }
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, ValueError> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(ValueError::NoPort(text.to_owned()));
    }
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    let is_name = host.starts_with(|first: char| first.is_ascii_alphabetic())
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    let text = text.to_owned();
    Err(if is_name { ValueError::Name(text) } else { ValueError::Address(text) })
}

/// What an operator gives up: by namespace, the entry after which everything may be lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses(pub(crate) BTreeMap<String, u64>);

pub(crate) fn losses(text: &str) -> Result<Losses, ValueError> {
    let mut losses = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let refused = || ValueError::Loss(part.to_owned());
        let (namespace, index) = part.rsplit_once('@').ok_or_else(refused)?;
        let index = index.parse().map_err(|_| refused())?;
        losses.insert(name(namespace)?, index);
    }
    Ok(Losses(losses))
}

/// `500ms`, `8s`, `2m`, `1h`, `7d`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, ValueError> {
    discovery::options::parse_duration(text).map_err(|error| ValueError::Duration(error.0))
}

/// The name of a service, by the rule of the registry.
pub(crate) fn service(text: &str) -> Result<String, ValueError> {
    xds::name::check_name("service", text)?;
    Ok(text.to_owned())
}

/// The id of an instance, by the rule of the registry.
pub(crate) fn instance_id(text: &str) -> Result<String, ValueError> {
    xds::name::check_id(text)?;
    Ok(text.to_owned())
}

/// What people call a server, a region or a zone: safe in every place where it will appear, and
/// narrower than what the registry takes.
pub(crate) fn name(text: &str) -> Result<String, ValueError> {
    let fine = (1..=128).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if fine { Ok(text.to_owned()) } else { Err(ValueError::Label(text.to_owned())) }
}

/// How long a lease is to last, if the registry grants leases of that length.
pub(crate) fn ttl(text: &str) -> Result<Duration, ValueError> {
    let ttl = duration(text)?;
    let granted = (xds::MIN_TTL..=xds::MAX_TTL).contains(&ttl);
    if granted { Ok(ttl) } else { Err(ValueError::Ttl) }
}

pub(crate) fn pair(text: &str) -> Result<(String, String), ValueError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(ValueError::Pair(text.to_owned())),
    }
}
