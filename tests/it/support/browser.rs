//! What a browser adds to HTTP: cookies, forms, uploads.

use std::collections::BTreeMap;

use super::LIMIT;
use super::http::{Client, Response, Target};

/// Separates the parts of a form; not in what tests upload.
const BOUNDARY: &str = "--------boundary-of-a-test";

/// A client with cookies.
pub struct Browser {
    client: Client,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// Without any cookies.
    pub fn new(target: &Target) -> Self {
        Browser { client: Client::new(target, LIMIT), cookies: BTreeMap::new() }
    }

    /// As `other` is known to the server, on a connection of its own.
    pub fn with_cookies_of(mut self, other: &Browser) -> Self {
        self.cookies.clone_from(&other.cookies);
        self
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.get(name).map(String::as_str)
    }

    /// One request; redirections are not followed.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut headers = headers.to_vec();
        if !cookies.is_empty() {
            headers.push(("Cookie", &cookies));
        }
        let answer = self.client.call(method, path, &headers, body);
        let answer = answer.unwrap_or_else(|failure| panic!("{method} {path}: {failure:?}"));
        for (_, value) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let pair = value.split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("NAME=VALUE");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    /// GET.
    pub fn get(&mut self, path: &str) -> Response {
        self.call("GET", path, &[], b"")
    }

    /// POST of a JSON text.
    pub fn post_json(&mut self, path: &str, value: &serde_json::Value) -> Response {
        self.call("POST", path, &[("Content-Type", "application/json")], value.to_string().as_bytes())
    }

    /// POST of a form as a browser sends it with a file; `headers` are further ones.
    pub fn post_file(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        title: &str,
        file: (&str, &[u8]),
    ) -> Response {
        let (name, content) = file;
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\n{title}\r\n\
             --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", &kind));
        self.call("POST", path, &headers, &body)
    }
}

/// Something to upload: no text, and not the same again soon.
pub fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 + at / 251) as u8).collect()
}
