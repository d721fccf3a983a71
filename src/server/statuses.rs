//! What the gRPC library answers by itself, in codes and words that a client can do something with.
//!
//! - A message over the limit is `OUT_OF_RANGE` to the library, which is etcd's word for a compacted
//!   revision. gRPC's word is `RESOURCE_EXHAUSTED`.
//! - Messages that nest too deep are `INTERNAL`, as if the server were broken.
//! - A method that is not there is answered without a word.

use axum::{
    extract::Request,
    http::HeaderMap,
    middleware::{self, Next},
    response::Response,
};
use tonic::{Code, Status, service::Routes};

/// What the library says of a message over the limit, and of one that nests too deep.
const TOO_LARGE: &str = "Error, decoded message length too large";
const TOO_DEEP: &str = "recursion limit reached";

/// The routes of a port with the gRPC services of these names, with better answers.
pub(super) fn told_plainly(routes: Routes, services: &[&'static str]) -> Routes {
    let services = services.join(", ");
    let layer = middleware::from_fn(move |request: Request, next: Next| {
        let services = services.clone();
        async move { answer(request, next, &services).await }
    });
    routes.into_axum_router().layer(layer).into()
}

async fn answer(request: Request, next: Next, services: &str) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(better) = better(&path, response.headers(), services) {
        let headers = response.headers_mut();
        headers.remove(Status::GRPC_MESSAGE);
        if better.add_header(headers).is_err() {
            tracing::warn!(path, "an answer could not be put into words");
        }
    }
    response
}

/// A better status than the one in the headers, if that is one of the library's own.
fn better(path: &str, headers: &HeaderMap, services: &str) -> Option<Status> {
    let said = Status::from_header_map(headers)?;
    match (said.code(), said.message()) {
        (Code::Unimplemented, "") => Some(Status::unimplemented(format!(
            "{} is not there: this port serves {services}",
            path.trim_start_matches('/')
        ))),
        (Code::OutOfRange, message) if message.starts_with(TOO_LARGE) => {
            let sizes = message.trim_start_matches(TOO_LARGE).trim_start_matches(": ");
            Some(Status::resource_exhausted(format!("the message is too large: {sizes}")))
        }
        (Code::Internal, message) if message.ends_with(TOO_DEEP) => Some(Status::invalid_argument(
            "the message nests too deep: transactions nest up to 127 deep",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn better_than(status: &Status) -> Option<(Code, String)> {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let better = better("/etcdserverpb.Watch/Watch", &headers, "etcdserverpb.KV")?;
        Some((better.code(), better.message().to_owned()))
    }

    #[test]
    fn what_the_library_says_is_put_into_words() {
        let absent = better_than(&Status::unimplemented("")).unwrap();
        let text = "etcdserverpb.Watch/Watch is not there: this port serves etcdserverpb.KV";
        assert_eq!(absent, (Code::Unimplemented, text.to_owned()));
        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
        let text = "the message is too large: found 9 bytes, the limit is: 8 bytes";
        let better = better_than(&Status::out_of_range(large)).unwrap();
        assert_eq!(better, (Code::ResourceExhausted, text.to_owned()));
        let deep = "failed to decode Protobuf message: TxnRequest.success: recursion limit reached";
        assert_eq!(better_than(&Status::internal(deep)).unwrap().0, Code::InvalidArgument);
    }

    #[test]
    fn what_a_service_says_stays() {
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        for status in [
            Status::out_of_range(compacted),
            Status::internal("broken"),
            Status::unimplemented("etcdserver: the mesh keeps the membership"),
            Status::ok(""),
        ] {
            assert_eq!(better_than(&status), None, "{status}");
        }
        assert!(better("/", &HeaderMap::new(), "").is_none());
    }
}
