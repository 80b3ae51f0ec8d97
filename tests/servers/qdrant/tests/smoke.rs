//! The official Rust client against the started binary.

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::Server;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{
    CollectionStatus, CountPointsBuilder, CreateCollectionBuilder, DeletePointsBuilder, Distance, GetPointsBuilder,
    HnswConfigDiffBuilder, MultiVectorComparator, MultiVectorConfigBuilder, NamedVectors, OptimizersConfigDiffBuilder,
    PointStruct, QueryPointsBuilder, RetrievedPoint, ScrollPointsBuilder, SparseVectorParamsBuilder,
    SparseVectorsConfigBuilder, UpdateCollectionBuilder, UpsertPointsBuilder, Value, Vector, VectorParamsBuilder,
    VectorsConfigBuilder, vector_output,
};
use qdrant_client::{Payload, Qdrant, QdrantError};
use tonic::Code;

/// What a careless store changes: signed zero, subnormals, the ends of the range.
const AWKWARD: [f32; 8] = [0.0, -0.0, 1e-45, -1.175_494_2e-38, f32::MIN_POSITIVE, f32::MAX, f32::MIN, 0.1];

fn payload(number: i64) -> Payload {
    let mut payload = Payload::new();
    payload.insert("number", number);
    payload.insert("double", 1.0);
    payload.insert("text", "Grüße");
    payload.insert("null", Value { kind: None });
    payload.insert("empty", Vec::<Value>::new());
    payload
}

async fn create(client: &Qdrant, name: &str) {
    let mut vectors = VectorsConfigBuilder::default();
    vectors.add_named_vector_params("dense", VectorParamsBuilder::new(8, Distance::Dot));
    vectors.add_named_vector_params("cosine", VectorParamsBuilder::new(3, Distance::Cosine));
    vectors.add_named_vector_params(
        "multi",
        VectorParamsBuilder::new(2, Distance::Dot)
            .multivector_config(MultiVectorConfigBuilder::new(MultiVectorComparator::MaxSim)),
    );
    let mut sparse = SparseVectorsConfigBuilder::default();
    sparse.add_named_vector_params("sparse", SparseVectorParamsBuilder::default());
    client
        .create_collection(CreateCollectionBuilder::new(name).vectors_config(vectors).sparse_vectors_config(sparse))
        .await
        .expect("the collection is created");
}

fn point(number: u64) -> PointStruct {
    let mut dense = AWKWARD;
    dense.rotate_left(number as usize % 8);
    let vectors = NamedVectors::default()
        .add_vector("dense", Vector::new_dense(dense.to_vec()))
        .add_vector("cosine", Vector::new_dense(vec![3.0, 0.0, 4.0]))
        .add_vector("multi", Vector::new_multi(vec![vec![-0.0, 1e-45], vec![number as f32, 2.0]]))
        .add_vector("sparse", Vector::new_sparse(vec![7, 70_000], vec![-0.0, 1e-45]));
    PointStruct::new(number, vectors, payload(number as i64))
}

async fn scroll_all(client: &Qdrant, name: &str) -> Vec<RetrievedPoint> {
    let (mut points, mut offset) = (Vec::new(), None);
    loop {
        let mut request = ScrollPointsBuilder::new(name).limit(64).with_payload(true).with_vectors(true);
        if let Some(id) = offset {
            request = request.offset::<qdrant_client::qdrant::PointId>(id);
        }
        let page = client.scroll(request).await.expect("a page");
        points.extend(page.result);
        offset = page.next_page_offset;
        if offset.is_none() {
            return points;
        }
    }
}

/// The values of every vector of a point as bits, because `-0.0 == 0.0`.
fn bits(point: &RetrievedPoint) -> HashMap<String, Vec<u32>> {
    let Some(VectorsOptions::Vectors(named)) =
        point.vectors.as_ref().and_then(|vectors| vectors.vectors_options.clone())
    else {
        panic!("named vectors expected: {point:?}");
    };
    let flat = |vector: vector_output::Vector| match vector {
        vector_output::Vector::Dense(dense) => dense.data,
        vector_output::Vector::Sparse(sparse) => {
            assert_eq!(vec![7, 70_000], sparse.indices);
            sparse.values
        }
        vector_output::Vector::MultiDense(multi) => multi.vectors.into_iter().flat_map(|row| row.data).collect(),
    };
    named
        .vectors
        .into_iter()
        .map(|(name, vector)| {
            let values = flat(vector.vector.expect("the oneof is filled"));
            (name, values.into_iter().map(f32::to_bits).collect())
        })
        .collect()
}

fn code(error: &QdrantError) -> Code {
    match error {
        QdrantError::ResponseError { status } => status.code(),
        other => panic!("a status expected: {other}"),
    }
}

#[tokio::test]
async fn acknowledged_points_survive_kill_dash_nine_bit_for_bit() {
    let storage = tempfile::tempdir().expect("a directory");
    let server = Server::start(storage.path(), &[]);
    let client = server.client();
    create(&client, "memories").await;
    for first in [0, 100] {
        let points: Vec<_> = (first..first + 100).map(point).collect();
        client
            .upsert_points(UpsertPointsBuilder::new("memories", points).wait(true))
            .await
            .expect("the points are stored");
    }
    client
        .delete_points(
            DeletePointsBuilder::new("memories").points(vec![qdrant_client::qdrant::PointId::from(5)]).wait(true),
        )
        .await
        .expect("the point is deleted");
    let before = scroll_all(&client, "memories").await;
    server.kill();

    let server = Server::start(storage.path(), &[]);
    let client = server.client();
    let after = scroll_all(&client, "memories").await;
    assert_eq!(199, after.len());
    assert_eq!(before, after);
    for found in &after {
        let number = found.payload["number"].as_integer().expect("an integer") as u64;
        let mut dense = AWKWARD;
        dense.rotate_left(number as usize % 8);
        let bits = bits(found);
        assert_eq!(dense.map(f32::to_bits).to_vec(), bits["dense"]);
        let multi = [-0.0, 1e-45, number as f32, 2.0].map(f32::to_bits);
        assert_eq!(multi.to_vec(), bits["multi"]);
        assert_eq!([-0.0f32, 1e-45].map(f32::to_bits).to_vec(), bits["sparse"]);
        let cosine: Vec<f32> = bits["cosine"].iter().copied().map(f32::from_bits).collect();
        assert!((cosine[0] - 0.6).abs() < 1e-6 && (cosine[2] - 0.8).abs() < 1e-6, "{cosine:?}");
        assert!(found.payload["double"].as_double().is_some(), "a double stays a double");
        assert!(found.payload["empty"].as_list().is_some_and(<[Value]>::is_empty));
    }
    let count = client.count(CountPointsBuilder::new("memories").exact(true)).await.expect("a count");
    assert_eq!(199, count.result.expect("a result").count);
}

#[tokio::test]
async fn a_bad_point_rejects_its_whole_request() {
    let storage = tempfile::tempdir().expect("a directory");
    let server = Server::start(storage.path(), &[]);
    let client = server.client();
    create(&client, "memories").await;
    let wrong_size = NamedVectors::default().add_vector("dense", Vector::new_dense(vec![1.0]));
    let wrong_name = NamedVectors::default().add_vector("other", Vector::new_dense(vec![1.0; 8]));
    for vectors in [wrong_size, wrong_name] {
        let points = vec![point(1), PointStruct::new(2, vectors, Payload::new())];
        let error = client
            .upsert_points(UpsertPointsBuilder::new("memories", points).wait(true))
            .await
            .expect_err("the request is refused");
        assert_eq!(Code::InvalidArgument, code(&error));
    }
    assert!(scroll_all(&client, "memories").await.is_empty());
    let missing = client.collection_info("nothing").await.expect_err("no such collection");
    assert_eq!(Code::NotFound, code(&missing));
    let again = client.create_collection(CreateCollectionBuilder::new("memories")).await.expect_err("it exists");
    assert_eq!(Code::AlreadyExists, code(&again));
}

#[tokio::test]
async fn the_optimizer_builds_an_index_once_it_is_allowed_to() {
    let storage = tempfile::tempdir().expect("a directory");
    let server = Server::start(storage.path(), &[]);
    let client = server.client();
    let deferred = OptimizersConfigDiffBuilder::default().indexing_threshold(0u64);
    client
        .create_collection(
            CreateCollectionBuilder::new("index")
                .vectors_config(VectorParamsBuilder::new(32, Distance::Dot))
                .optimizers_config(deferred),
        )
        .await
        .expect("the collection is created");
    let points: Vec<_> = (0..2_000u64)
        .map(|number| {
            let values: Vec<f32> = (0..32).map(|place| (number * 31 + place) as f32).collect();
            PointStruct::new(number, values, Payload::new())
        })
        .collect();
    client.upsert_points(UpsertPointsBuilder::new("index", points).wait(true)).await.expect("the points are stored");
    let info = async |client: &Qdrant| {
        let info = client.collection_info("index").await.expect("information");
        info.result.expect("a result")
    };
    let before = info(&client).await;
    assert_eq!(Some(0), before.indexed_vectors_count);
    assert_eq!(CollectionStatus::Green, before.status());
    client
        .update_collection(
            UpdateCollectionBuilder::new("index")
                .optimizers_config(OptimizersConfigDiffBuilder::default().indexing_threshold(10u64))
                .hnsw_config(HnswConfigDiffBuilder::default().m(8)),
        )
        .await
        .expect("the collection is changed");
    let deadline = Instant::now() + Duration::from_mins(1);
    let after = loop {
        let info = info(&client).await;
        if info.status() == CollectionStatus::Green || Instant::now() > deadline {
            break info;
        }
    };
    assert_eq!(Some(2_000), after.indexed_vectors_count);
    assert_eq!(Some(2_000), after.points_count);
    let config = after.config.expect("a configuration");
    assert_eq!(Some(8), config.hnsw_config.and_then(|hnsw| hnsw.m));
    let optimizers = config.optimizer_config.expect("optimizer settings");
    assert_eq!(Some(10), optimizers.indexing_threshold);
    let mut query = vec![0.0; 32];
    query[0] = 1.0;
    let nearest = client.query(QueryPointsBuilder::new("index").query(query).limit(1)).await.expect("an answer");
    assert_eq!(Some(1_999u64.into()), nearest.result[0].id);
}

#[tokio::test]
async fn faults_strike_as_they_were_ordered() {
    let storage = tempfile::tempdir().expect("a directory");
    let server = Server::start(storage.path(), &[]);
    let client = server.client();
    create(&client, "memories").await;
    let upsert = async |number: u64| {
        let request = UpsertPointsBuilder::new("memories", vec![point(number)]).wait(true);
        client.upsert_points(request).await
    };
    let exists = async |number: u64| {
        let ids = vec![qdrant_client::qdrant::PointId::from(number)];
        let found = client.get_points(GetPointsBuilder::new("memories", ids)).await;
        !found.expect("an answer").result.is_empty()
    };

    // This client tries once more by itself where a connection may have been the reason, so a
    // call that is to fail for it needs two strikes.
    server.control("refuse count=2 skip=1");
    upsert(1).await.expect("the first write is skipped");
    let error = upsert(2).await.expect_err("refused");
    assert_eq!(Code::Unavailable, code(&error));
    assert!(!exists(2).await);
    upsert(2).await.expect("the fault is used up");

    server.control("exhaust retry-after=7");
    match upsert(3).await.expect_err("exhausted") {
        QdrantError::ResourceExhaustedError { retry_after_seconds, .. } => {
            assert_eq!(7, retry_after_seconds);
        }
        other => panic!("a rate limit expected: {other}"),
    }
    assert!(!exists(3).await);

    server.control("reset-before count=2");
    upsert(4).await.expect_err("reset");
    assert!(!exists(4).await);
    server.control("reset-after count=2");
    upsert(5).await.expect_err("reset");
    assert!(exists(5).await, "applied although its answer was lost");

    server.control("delay ms=200 count=1");
    let begun = Instant::now();
    upsert(6).await.expect("late but stored");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert!(server.control("status").contains("\"faults\":[]"));
}

#[tokio::test]
async fn the_api_key_is_required_where_one_is_set() {
    let storage = tempfile::tempdir().expect("a directory");
    let file = storage.path().join("key");
    std::fs::write(&file, "secret\n").expect("the key is written");
    let data = storage.path().join("data");
    let server = Server::start(&data, &["--api-key-file", file.to_str().expect("a path")]);
    for key in [None, Some("wrong")] {
        let client = server.client_with_key(key);
        client.health_check().await.expect("the health check is open");
        let error = client.list_collections().await.expect_err("refused");
        assert_eq!(Code::Unauthenticated, code(&error));
    }
    let client = server.client_with_key(Some("secret"));
    client.list_collections().await.expect("the right key");
}
