//! etcd's requests and answers.

mod nested;

tonic::include_proto!("etcdserverpb");

pub use self::nested::{Nested, RequestOp, ResponseOp, request_op, response_op};
