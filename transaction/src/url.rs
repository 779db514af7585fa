//! Where an object can be opened: the `access_url` template.

/// The template of an object's address, with `{{SCHEME}}`, `{{ENDPOINT}}`, `{{BUCKET}}` and `{{DIGEST}}`
/// as placeholders; an unknown placeholder stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUrl {
    before: String,
    after: Option<String>,
}

impl AccessUrl {
    /// A template with everything but the digest filled in.
    #[must_use]
    pub fn new(template: &str, scheme: &str, endpoint: &str, bucket: &str) -> Self {
        let filled =
            template.replace("{{SCHEME}}", scheme).replace("{{ENDPOINT}}", endpoint).replace("{{BUCKET}}", bucket);
        match filled.split_once("{{DIGEST}}") {
            Some((before, after)) => AccessUrl { before: before.to_owned(), after: Some(after.to_owned()) },
            None => AccessUrl { before: filled, after: None },
        }
    }

    /// The template that `tapstack up` uses: the gateway's own address.
    #[must_use]
    pub fn gateway(listen: &std::net::SocketAddr, bucket: &str) -> Self {
        AccessUrl::new("{{SCHEME}}://{{ENDPOINT}}/{{BUCKET}}/{{DIGEST}}", "http", &listen.to_string(), bucket)
    }

    /// The address of one object.
    #[must_use]
    pub fn of(&self, digest: &crate::Digest) -> String {
        match &self.after {
            Some(after) => format!("{}{digest}{}", self.before, after.replace("{{DIGEST}}", &digest.to_string())),
            None => self.before.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn fills_the_placeholders_and_leaves_unknown_ones() {
        let d = Digest::of(b"");
        let u = AccessUrl::new("{{SCHEME}}://{{ENDPOINT}}/{{BUCKET}}/{{DIGEST}}?x={{Y}}", "https", "s3.example:9", "b");
        assert_eq!(u.of(&d), format!("https://s3.example:9/b/{d}?x={{{{Y}}}}"));
        assert_eq!(AccessUrl::new("http://h/", "", "", "").of(&d), "http://h/");
    }
}
