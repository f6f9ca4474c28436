//! Following a plan that somebody else made: any legal cuts, and nothing but those.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod support;

use shardproof_common::plan::{BackendOptions, BoundaryMode, EzklOptions, Plan};
use shardproof_models::{BoundaryModes, LoadOptions, ModelSource, OnnxModel, SplitRequest, Strategy};
use support::{Builder, int};

fn mlp() -> OnnxModel {
    OnnxModel::load(&ModelSource::resolve("mlp").unwrap(), &LoadOptions::default()).unwrap()
}

fn split(model: &OnnxModel, shards: usize, strategy: Strategy) -> Plan {
    let backend = |_| BackendOptions::Ezkl(EzklOptions::default());
    model.split(&SplitRequest { shards, strategy, backend: &backend, modes: BoundaryModes::default() }).unwrap().plan
}

/// The plan with its first shard ending elsewhere, and the second one beginning there.
fn moved(mut plan: Plan, last: &str, next: &str) -> Plan {
    plan.shards[0].last_node = last.to_owned();
    plan.shards[1].first_node = next.to_owned();
    plan
}

#[test]
fn a_plan_is_followed_whoever_chose_its_cuts() {
    let model = mlp();
    for strategy in [Strategy::Balanced, Strategy::Layers] {
        for shards in [1, 2, 3, 12] {
            let plan = split(&model, shards, strategy);
            assert_eq!(model.split_as(&plan).unwrap().0, plan);
        }
    }
    let chosen = [Strategy::Balanced, Strategy::Layers].map(|strategy| split(&model, 2, strategy));
    let (plan, shards) = model.split_as(&moved(chosen[0].clone(), "flatten", "fc1")).unwrap();
    assert!(chosen.iter().all(|chosen| chosen.shards[0].last_node != "flatten" && *chosen != plan));
    assert_eq!((plan.shards[0].parameters, plan.shards[1].parameters), (0, 711));
    assert_eq!((shards[0].nodes, shards[1].nodes), (1, model.nodes() - 1));
    assert_eq!(model.split_as(&plan).unwrap().0, plan);
}

#[test]
fn modes_and_backends_are_the_plans() {
    let model = mlp();
    let mut plan = split(&model, 3, Strategy::Balanced);
    for (boundary, mode) in
        [BoundaryMode::Hashed, BoundaryMode::Polycommit, BoundaryMode::Polycommit].iter().enumerate()
    {
        plan.boundaries[boundary].mode = *mode;
    }
    let other = BackendOptions::Ezkl(EzklOptions { input_scale: Some(5), ..EzklOptions::default() });
    plan.shards[2].backend = other;
    assert_eq!(model.split_as(&plan).unwrap().0, plan);
    plan.shards[2].backend = BackendOptions::Float;
    let refused = model.split_as(&plan).unwrap_err().to_string();
    assert!(refused.contains("boundary 2 cannot be polycommit: shard 2 runs on float"), "{refused}");
}

#[test]
fn a_plan_that_is_not_this_models_is_refused_for_its_reason() {
    let model = mlp();
    let whole = split(&model, 2, Strategy::Layers);
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut plan = whole.clone();
        change(&mut plan);
        model.split_as(&plan).unwrap_err().to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut Plan);
    let cases: [(Change<'_>, &str); 7] = [
        (&|plan| plan.shards.clear(), "0 shards and 3 boundaries"),
        (&|plan| drop(plan.boundaries.pop()), "2 shards and 2 boundaries"),
        (
            &|plan| plan.shards[0].first_node = "fc1".into(),
            "has to begin with node `flatten`, but it begins with `fc1`",
        ),
        (&|plan| plan.shards[0].last_node = "nowhere".into(), "shard 0 of the plan cannot end with `nowhere`"),
        (&|plan| plan.shards[1].last_node = "fc1".into(), "shard 1 of the plan cannot end with `fc1`"),
        (
            &|plan| plan.shards[1].last_node = "relu5".into(),
            "the plan ends with node `relu5`, but the model with `fc6`",
        ),
        (&|plan| plan.shards[0].last_node = "fc6".into(), "has to begin with node `none`"),
    ];
    for (change, reason) in cases {
        let said = refused(change);
        assert!(said.contains(reason), "{said}");
    }
    // A node left out between two shards, and one that both have.
    let gap = model.split_as(&moved(whole.clone(), "fc1", "fc2")).unwrap_err().to_string();
    assert!(gap.contains("shard 1 of the plan has to begin with node `relu1`, but it begins with `fc2`"), "{gap}");
    let twice = model.split_as(&moved(whole.clone(), "fc1", "fc1")).unwrap_err().to_string();
    assert!(twice.contains("begins with `fc1`"), "{twice}");
}

#[test]
fn a_cut_where_the_model_cannot_be_cut_is_refused_with_what_stands_in_the_way() {
    let bytes = Builder::new()
        .input("x", &[1, 4])
        .node("relu", "Relu", &["x"], &["r"])
        .node_with("largest", "ArgMax", &["r"], &["i"], vec![int("axis", 1)])
        .node_with("back", "Cast", &["i"], &["y"], vec![int("to", 1)])
        .output("y")
        .bytes();
    let model = OnnxModel::parse("arg", &bytes, &LoadOptions::default()).unwrap();
    assert_eq!(model.max_shards(), 2);
    let legal = split(&model, 2, Strategy::Balanced);
    assert_eq!(legal.shards[0].last_node, "relu");
    let refused = model.split_as(&moved(legal, "largest", "back")).unwrap_err().to_string();
    let reason = "the model cannot be cut behind node `largest`: tensor `i` (Int64, [1, 1]) would cross";
    assert!(refused.contains(reason), "{refused}");
}
