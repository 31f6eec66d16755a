//! Which targets are reached through a proxy, and which one.
//!
//! In: flags, or environment variables that are handed in. Out: for a target, a proxy or none.

use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

/// The variables that name a proxy for connections like these, and those that say where not to use it: the first of
/// each that is set and not empty counts.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Which targets are reached through a proxy, and which one.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    proxy: Option<Proxy>,
    /// Takes every target but those that need no proxy.
    matcher: Arc<Matcher>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self::direct()
    }
}

impl ProxySettings {
    /// No proxy for anybody.
    pub fn direct() -> Self {
        Self { proxy: None, matcher: Arc::new(matcher("")) }
    }

    /// `proxy` for every target.
    pub fn through(proxy: Proxy) -> Self {
        Self { proxy: Some(proxy), matcher: Arc::new(matcher("")) }
    }

    /// What environment variables say, as curl takes them: `HTTPS_PROXY`, then `ALL_PROXY`, each in capitals and then
    /// in small letters, name the proxy. `NO_PROXY` holds what is reached without it: names with all that are below
    /// them, IP addresses, networks (`10.0.0.0/8`), or `*` for everything, separated by commas.
    ///
    /// ```
    /// use towline_transports::proxy::ProxySettings;
    ///
    /// let variables = [("HTTPS_PROXY", "http://proxy.test:3128"), ("NO_PROXY", "inside.test, 10.0.0.0/8")];
    /// let settings = ProxySettings::from_environment(variables).unwrap();
    /// assert_eq!(settings.proxy_for("hub.test:443").unwrap().to_string(), "proxy.test:3128");
    /// assert!(settings.proxy_for("hub.inside.test:443").is_none());
    /// assert!(settings.proxy_for("10.1.2.3:443").is_none());
    /// ```
    ///
    /// # Errors
    ///
    /// The variable that counts does not name a usable proxy. To pass over it would mean to go around the proxy.
    pub fn from_environment<K: AsRef<str>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ProxyUrlError> {
        let mut proxies = [const { String::new() }; PROXY_VARIABLES.len()];
        let mut exceptions = [const { String::new() }; NO_PROXY_VARIABLES.len()];
        for (name, value) in variables {
            let place = |names: &[&str]| names.iter().position(|known| *known == name.as_ref());
            if let Some(index) = place(&PROXY_VARIABLES) {
                proxies[index] = value.into();
            } else if let Some(index) = place(&NO_PROXY_VARIABLES) {
                exceptions[index] = value.into();
            }
        }
        let Some(index) = proxies.iter().position(|url| !url.is_empty()) else { return Ok(Self::direct()) };
        let proxy = proxies[index].parse().map_err(|error| match error {
            ProxyUrlError::Malformed { .. } => ProxyUrlError::Malformed { from: PROXY_VARIABLES[index] },
            ProxyUrlError::Scheme { scheme, .. } => {
                ProxyUrlError::Scheme { scheme, from: PROXY_VARIABLES[index] }
            }
        })?;
        let exceptions = exceptions.iter().find(|list| !list.is_empty()).map_or("", String::as_str);
        Ok(Self { proxy: Some(proxy), matcher: Arc::new(matcher(exceptions)) })
    }

    /// The proxy that `target`, a `host:port`, is reached through.
    pub fn proxy_for(&self, target: &str) -> Option<&Proxy> {
        let proxy = self.proxy.as_ref()?;
        // What is no target at all is for the proxy's `connect` to say.
        let Ok(uri) = format!("https://{target}/").parse::<Uri>() else { return Some(proxy) };
        self.matcher.intercept(&uri).map(|_| proxy)
    }
}

fn matcher(exceptions: &str) -> Matcher {
    Matcher::builder().https("http://proxy.invalid").no(exceptions.to_owned()).build()
}

/// A proxy: where it is, and how this end shows who it is.
///
/// ```
/// use towline_transports::proxy::Proxy;
///
/// let proxy: Proxy = "http://user:secret@proxy.test:3128".parse().unwrap();
/// assert_eq!(proxy.to_string(), "proxy.test:3128");
/// ```
#[derive(Clone, Debug)]
pub struct Proxy {
    pub(super) address: String,
    /// Marked as sensitive, so that it is not printed.
    pub(super) authorization: Option<HeaderValue>,
}

impl std::fmt::Display for Proxy {
    /// Its address, without user and password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.address)
    }
}

impl std::str::FromStr for Proxy {
    type Err = ProxyUrlError;

    /// Takes `http://[USER:PASSWORD@]HOST[:PORT]`. Without a port it is 80; the `http://` may be missing. What is
    /// special in a URL is percent-encoded in user and password.
    fn from_str(url: &str) -> Result<Self, ProxyUrlError> {
        let from = "the proxy's URL";
        let url = url.trim();
        if let Some((scheme, _)) = url.split_once("://")
            && !scheme.eq_ignore_ascii_case("http")
        {
            return Err(ProxyUrlError::Scheme { scheme: scheme.escape_default().to_string(), from });
        }
        let everything = Uri::from_static("https://target.invalid/");
        let intercept = Matcher::builder().https(url.to_owned()).build().intercept(&everything);
        let intercept = intercept.ok_or(ProxyUrlError::Malformed { from })?;
        let authority = intercept.uri().authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or(ProxyUrlError::Malformed { from })?;
        let address = match authority.port_u16() {
            Some(_) => authority.to_string(),
            None if authority.as_str() == authority.host() => format!("{authority}:80"),
            None => return Err(ProxyUrlError::Malformed { from }),
        };
        Ok(Self { address, authorization: intercept.basic_auth().cloned() })
    }
}

/// Why there are no proxy settings. The URL is not in it, as it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// It is none.
    #[error("{from} is not http://[USER:PASSWORD@]HOST:PORT")]
    Malformed {
        /// Where it stands.
        from: &'static str,
    },
    /// It is for another kind of proxy.
    #[error(
        "{from} is for a proxy of kind {scheme}, which is not supported: give an HTTP proxy, http://HOST:PORT"
    )]
    Scheme {
        /// What stands before the `://`.
        scheme: String,
        /// Where it stands.
        from: &'static str,
    },
}
