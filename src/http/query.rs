//! Query strings and forms with nested names, as Phoenix and Rails write them: `a=1&b[c]=2&d[]=3`.
#![forbid(unsafe_code)]

use std::fmt;

/// Brackets in one name; more is refused.
pub const MAX_DEPTH: usize = 32;
/// Pairs in one string; more is refused.
pub const MAX_PAIRS: usize = 1000;

/// An ordered tree with string keys.
///
/// `a=1` is a text, `a[b]=1` a map within, `a[]=1&a[]=2` a list. Of two values for one place the later one counts, even if
/// the earlier was of another shape. `+` is a blank, `%` followed by two hexadecimal digits a byte.
///
/// ```
/// use wingbeat::http::Params;
///
/// let params = Params::parse("user[name]=a+b&user[tags][]=x&user[tags][]=%C3%A9&vsn=2.0.0")?;
/// assert_eq!(params.text("vsn"), Some("2.0.0"));
/// assert_eq!(params.to_json(), serde_json::json!({"user": {"name": "a b", "tags": ["x", "é"]}, "vsn": "2.0.0"}));
/// # Ok::<(), wingbeat::http::query::QueryError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, Value)>);

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `name=text`
    Text(String),
    /// `name[]=…`
    List(Vec<Value>),
    /// `name[key]=…`
    Map(Params),
}

impl Params {
    /// Reads `application/x-www-form-urlencoded` text.
    ///
    /// # Errors
    /// [`QueryError`]; nothing of it is used then.
    pub fn parse(text: &str) -> Result<Params, QueryError> {
        let mut params = Params::default();
        for (pair, number) in text.split('&').filter(|pair| !pair.is_empty()).zip(1..) {
            if number > MAX_PAIRS {
                return Err(QueryError::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name, true)?, decode(value, true)?);
            let (key, path) = split(&name)?;
            params.insert(key, &path, value);
        }
        Ok(params)
    }

    /// What stands under a name.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The text under a name; none if there is nothing, a list or a map.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Puts a value under a name, in place of what was there.
    pub fn put(&mut self, key: &str, value: Value) {
        *self.entry(key) = value;
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same as a JSON object of objects, arrays and strings.
    pub fn to_json(&self) -> serde_json::Value {
        self.iter().map(|(name, value)| (name.to_owned(), value.to_json())).collect()
    }

    /// The place of a name, made if there is none.
    fn entry(&mut self, key: &str) -> &mut Value {
        let at = self.0.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            self.0.push((key.to_owned(), Value::Text(String::new())));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn insert(&mut self, key: &str, path: &[&str], text: String) {
        self.entry(key).place(path, text);
    }
}

impl Value {
    /// The same as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.as_str().into(),
            Value::List(list) => list.iter().map(Value::to_json).collect(),
            Value::Map(map) => map.to_json(),
        }
    }

    fn place(&mut self, path: &[&str], text: String) {
        match path {
            [] => *self = Value::Text(text),
            ["", rest @ ..] => {
                let mut item = Value::Text(String::new());
                item.place(rest, text);
                match self {
                    Value::List(list) => list.push(item),
                    other => *other = Value::List(vec![item]),
                }
            }
            [key, rest @ ..] => {
                if !matches!(self, Value::Map(_)) {
                    *self = Value::Map(Params::default());
                }
                if let Value::Map(map) = self {
                    map.insert(key, rest, text);
                }
            }
        }
    }
}

/// Why a query or a form is not read. The client's fault; 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryError {
    /// `%` without two hexadecimal digits, or bytes that are not UTF-8.
    Encoding,
    /// More than [`MAX_DEPTH`] brackets in a name.
    TooDeep,
    /// More than [`MAX_PAIRS`] pairs.
    TooMany,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueryError::Encoding => "wrongly encoded",
            QueryError::TooDeep => "names too deeply nested",
            QueryError::TooMany => "too many pairs",
        })
    }
}

impl std::error::Error for QueryError {}

/// `a[b][]` is `a`, `b` and nothing. A name whose brackets do not fit is taken as it is.
fn split(name: &str) -> Result<(&str, Vec<&str>), QueryError> {
    let Some((key, rest)) = name.split_once('[').filter(|(key, rest)| !key.is_empty() && rest.ends_with(']')) else {
        return Ok((name, Vec::new()));
    };
    let path: Vec<&str> = rest[..rest.len() - 1].split("][").take(MAX_DEPTH + 1).collect();
    if path.len() > MAX_DEPTH {
        return Err(QueryError::TooDeep);
    }
    if path.iter().any(|part| part.contains(['[', ']'])) {
        return Ok((name, Vec::new()));
    }
    Ok((key, path))
}

/// Percent-decodes; in forms `+` is a blank.
pub(crate) fn decode(text: &str, form: bool) -> Result<String, QueryError> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).ok_or(QueryError::Encoding);
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        decoded.push(match byte {
            b'%' => {
                let byte = digit(bytes.get(at))? << 4 | digit(bytes.get(at + 1))?;
                at += 2;
                byte as u8
            }
            b'+' if form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| QueryError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_nest() {
        for (text, expected) in [
            ("", json!({})),
            ("&&a", json!({"a": ""})),
            ("a=b=c&=d", json!({"a": "b=c", "": "d"})),
            ("a=1&a[b]=c&a[]=1", json!({"a": ["1"]})),
            ("a[]=1&a[]=2&a[][b]=3", json!({"a": ["1", "2", {"b": "3"}]})),
            ("a[b][c]=1&a[b][d]=2&a[e]=3", json!({"a": {"b": {"c": "1", "d": "2"}, "e": "3"}})),
            ("a[b]=1&a=2", json!({"a": "2"})),
            ("a%5Bb%5D=x+y%2B%26", json!({"a": {"b": "x y+&"}})),
            ("a[b=1&c]=2&[d]=3&e[f]g=4", json!({"a[b": "1", "c]": "2", "[d]": "3", "e[f]g": "4"})),
        ] {
            assert_eq!(Params::parse(text).map(|params| params.to_json()), Ok(expected), "{text}");
        }
        let params = Params::parse("b=1&a=2&b=3").unwrap();
        assert_eq!(params.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "a"], "in order");
        assert_eq!(Params::parse("a[]=1").unwrap().text("a"), None);
    }

    #[test]
    fn limits_and_bad_encodings() {
        for text in ["a=%", "a=%4", "a=%zz", "%+1=a", "a=%ff", "a=%é"] {
            assert_eq!(Params::parse(text), Err(QueryError::Encoding), "{text}");
        }
        let deep = |depth| Params::parse(&format!("a{}=1", "[b]".repeat(depth)));
        assert!(deep(MAX_DEPTH).is_ok());
        assert_eq!(deep(MAX_DEPTH + 1), Err(QueryError::TooDeep));
        assert!(Params::parse(&"a=1&".repeat(MAX_PAIRS)).is_ok());
        assert_eq!(Params::parse(&"a=1&".repeat(MAX_PAIRS + 1)), Err(QueryError::TooMany));
    }
}
