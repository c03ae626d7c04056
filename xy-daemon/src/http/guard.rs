//! Who may speak to a loopback port at all: the checks of `Host` and `Origin` that keep web pages out (pure).
//!
//! A browser lets any page send requests to loopback addresses, and by rebinding a name of its own to `127.0.0.1` a page
//! can even read the answers. The first gives itself away by `Origin` or `Sec-Fetch-Site`, the second by `Host`; both are
//! looked at before anything else is.

use std::net::SocketAddr;

use hyper::HeaderMap;
use hyper::Uri;
use hyper::header::{HOST, HeaderName, ORIGIN};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused before its token is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// `Host` is missing, doubled, or names something else than this server.
    #[error("the request must have exactly one `Host`, and it must be this server's address with its port")]
    Host,
    /// The request comes from a web page.
    #[error("requests of web pages are refused")]
    Origin,
}

/// The names under which one server may be spoken to, and the origins of web pages that may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    /// Creates the guard of a server that listens on `address`, with the port it really has.
    pub fn new(address: SocketAddr, origins: Vec<String>) -> Self {
        let port = address.port();
        let hosts = ["127.0.0.1", "[::1]", "localhost"].map(|host| format!("{host}:{port}"));
        Self { hosts: hosts.to_vec(), origins }
    }

    /// Checks one request.
    ///
    /// # Errors
    /// [`GuardError`], `Host` first.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), GuardError> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(GuardError::Host) };
        if !self.is_host(host.as_bytes()) {
            return Err(GuardError::Host);
        }
        // In its absolute form a target names the host once more, and some software believes that one instead.
        if let Some(authority) = uri.authority()
            && (!authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
                || uri.scheme_str() != Some("http"))
        {
            return Err(GuardError::Host);
        }
        let is_listed = |origin: &[u8]| self.origins.iter().any(|listed| listed.as_bytes() == origin);
        if !headers.get_all(ORIGIN).iter().all(|origin| is_listed(origin.as_bytes())) {
            return Err(GuardError::Origin);
        }
        let is_own = |site: &[u8]| matches!(site, b"same-origin" | b"none");
        let is_listed_page = headers.contains_key(ORIGIN);
        if !is_listed_page && !headers.get_all(SEC_FETCH_SITE).iter().all(|site| is_own(site.as_bytes())) {
            return Err(GuardError::Origin);
        }
        Ok(())
    }

    fn is_host(&self, host: &[u8]) -> bool {
        self.hosts.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn check(target: &str, headers: &[(&'static str, &[u8])]) -> Result<(), GuardError> {
        let guard =
            Guard::new(SocketAddr::from(([127, 0, 0, 1], 9847)), vec!["http://127.0.0.1:3000".to_owned()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).expect("a header's value"));
        }
        guard.check(&target.parse().expect("a target"), &map)
    }

    #[test]
    fn the_three_names_with_the_exact_port_are_accepted() {
        for host in ["127.0.0.1:9847", "[::1]:9847", "localhost:9847", "LocalHost:9847"] {
            assert_eq!(check("/v1/health", &[("host", host.as_bytes())]), Ok(()), "{host}");
        }
    }

    #[test]
    fn every_other_host_is_refused() {
        let refused: [&[u8]; 34] = [
            b"",
            b"evil.example",
            b"evil.example:9847",
            b"127.0.0.1",
            b"localhost",
            b"[::1]",
            b"127.0.0.1:80",
            b"127.0.0.1:09847",
            b"127.0.0.1:98470",
            b"127.0.0.1:",
            b"127.0.0.1:9847:9847",
            b"127.0.0.1.evil.example:9847",
            b"localhost.evil.example:9847",
            b"127.0.0.1.:9847",
            b"localhost.:9847",
            b"user@127.0.0.1:9847",
            b"127.0.0.1:9847@evil.example",
            b"2130706433:9847",
            b"0x7f000001:9847",
            b"0177.0.0.1:9847",
            b"127.1:9847",
            b"127.0.0.2:9847",
            b"0.0.0.0:9847",
            b"[::]:9847",
            b"::1:9847",
            b"[::1%25lo]:9847",
            b"[0:0:0:0:0:0:0:1]:9847",
            b"[::ffff:127.0.0.1]:9847",
            b"127.0.0.1:9847,evil.example",
            b"127.0.0.1:9847 ",
            b"127.0.0.1:9847/",
            b"127.0.0.1:9847#",
            b"http://127.0.0.1:9847",
            b"127.0.0.1:9847\xff",
        ];
        for host in refused {
            let shown = String::from_utf8_lossy(host);
            assert_eq!(check("/v1/health", &[("host", host)]), Err(GuardError::Host), "{shown}");
        }
    }

    #[test]
    fn a_missing_or_doubled_host_is_refused() {
        assert_eq!(check("/", &[]), Err(GuardError::Host));
        let good: (&str, &[u8]) = ("host", b"127.0.0.1:9847");
        assert_eq!(check("/", &[good, good]), Err(GuardError::Host));
        assert_eq!(check("/", &[good, ("host", b"evil.example")]), Err(GuardError::Host));
    }

    #[test]
    fn an_absolute_target_must_name_the_same_host() {
        let good: (&str, &[u8]) = ("host", b"127.0.0.1:9847");
        assert_eq!(check("http://127.0.0.1:9847/v1/health", &[good]), Ok(()));
        for target in [
            "http://evil.example/v1/health",
            "http://localhost:9847/v1/health",
            "http://user@127.0.0.1:9847/v1/health",
            "https://127.0.0.1:9847/v1/health",
            "127.0.0.1:9847",
        ] {
            assert_eq!(check(target, &[good]), Err(GuardError::Host), "{target}");
        }
    }

    #[test]
    fn a_web_page_is_refused_unless_its_origin_is_listed() {
        let host: (&str, &[u8]) = ("host", b"127.0.0.1:9847");
        for (name, value) in [
            ("origin", b"null".as_slice()),
            ("origin", b""),
            ("origin", b"http://evil.example"),
            ("origin", b"http://127.0.0.1:9847"),
            ("origin", b"http://localhost:9847"),
            ("origin", b"http://127.0.0.1:3000.evil.example"),
            ("origin", b"HTTP://127.0.0.1:3000"),
            ("origin", b"http://127.0.0.1:3000/"),
            ("origin", b"http://127.0.0.1:3000 http://evil.example"),
            ("origin", b"file://"),
            ("origin", b"chrome-extension://abc"),
            ("sec-fetch-site", b"cross-site"),
            ("sec-fetch-site", b"same-site"),
            ("sec-fetch-site", b"CROSS-SITE"),
            ("sec-fetch-site", b"invented"),
        ] {
            let shown = String::from_utf8_lossy(value);
            assert_eq!(check("/", &[host, (name, value)]), Err(GuardError::Origin), "{name}: {shown}");
        }
        let listed: (&str, &[u8]) = ("origin", b"http://127.0.0.1:3000");
        assert_eq!(check("/", &[host, listed]), Ok(()));
        assert_eq!(check("/", &[host, listed, ("sec-fetch-site", b"same-site")]), Ok(()));
        assert_eq!(check("/", &[host, listed, ("origin", b"null")]), Err(GuardError::Origin));
        assert_eq!(check("/", &[host, ("sec-fetch-site", b"none")]), Ok(()));
        assert_eq!(check("/", &[host, ("sec-fetch-site", b"same-origin")]), Ok(()));
    }

    #[test]
    fn the_host_is_looked_at_before_the_origin() {
        let headers: [(&str, &[u8]); 2] = [("host", b"evil.example"), ("origin", b"null")];
        assert_eq!(check("/", &headers), Err(GuardError::Host));
    }
}
