//! The target of a request: path segments and query, decoded once and strictly (pure).

/// Why a target is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A `%` is not followed by two hexadecimal digits, or what they make is not UTF-8.
    #[error("the target is not percent-encoded UTF-8")]
    Encoding,
    /// A control character is encoded in it.
    #[error("the target holds a control character")]
    Control,
    /// A parameter of the query is given twice.
    #[error("the parameter `{0}` is given twice")]
    Doubled(String),
}

/// Splits a path at its literal slashes and decodes each segment, so that `%2F` stays inside a segment.
///
/// # Errors
/// See [`TargetError`].
pub fn segments(path: &str) -> Result<Vec<String>, TargetError> {
    path.strip_prefix('/').unwrap_or(path).split('/').map(|segment| decode(segment, false)).collect()
}

/// Reads a query: `name=value` pairs between `&`, in their order; a name alone has an empty value.
///
/// # Errors
/// See [`TargetError`].
pub fn query(text: &str) -> Result<Vec<(String, String)>, TargetError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name, true)?, decode(value, true)?);
        if pairs.iter().any(|(known, _)| *known == name) {
            return Err(TargetError::Doubled(name));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Returns whether a text can be a server's path: no component that means something to a file system.
pub fn is_server_path(text: &str) -> bool {
    text.split('/').all(|component| !matches!(component, "" | "." | ".."))
}

fn decode(text: &str, plus_is_space: bool) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else { return Err(TargetError::Encoding) };
                // Two hexadecimal digits are at most 255.
                (high * 16 + low) as u8
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| TargetError::Encoding)?;
    if text.chars().any(char::is_control) { Err(TargetError::Control) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_slash_stays_inside_its_segment() {
        assert_eq!(segments("/v1/servers/a%2Fb/logs").unwrap(), ["v1", "servers", "a/b", "logs"]);
        assert_eq!(segments("/v1/servers/").unwrap(), ["v1", "servers", ""]);
        assert_eq!(segments("/a+b").unwrap(), ["a+b"]);
    }

    #[test]
    fn a_segment_is_decoded_once() {
        assert_eq!(segments("/%252e%252e").unwrap(), ["%2e%2e"]);
        assert_eq!(segments("/%2e%2e").unwrap(), [".."]);
    }

    #[test]
    fn what_is_not_percent_encoded_text_is_refused() {
        for path in ["/%", "/%4", "/%zz", "/%c3", "/%ff", "/%+1"] {
            assert_eq!(segments(path), Err(TargetError::Encoding), "{path}");
        }
        for path in ["/%00", "/%0a", "/a%1bb", "/%7f", "/%c2%85"] {
            assert_eq!(segments(path), Err(TargetError::Control), "{path}");
        }
    }

    #[test]
    fn a_query_is_read_in_order_and_refuses_a_doubled_name() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(query("a=1&b=x+y%26&c").unwrap(), [pair("a", "1"), pair("b", "x y&"), pair("c", "")]);
        assert_eq!(query("").unwrap(), []);
        assert_eq!(query("a=1&%61=2"), Err(TargetError::Doubled("a".to_owned())));
    }

    #[test]
    fn a_path_that_climbs_is_no_servers() {
        for climbing in ["..", ".", "", "a/../b", "a/", "/a", "a//b", "../../etc/passwd"] {
            assert!(!is_server_path(climbing), "{climbing}");
        }
        assert!(is_server_path("group/child"));
        assert!(is_server_path("..a"));
    }
}
