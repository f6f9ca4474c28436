//! Commit, open and verify, from 2^10 to 2^22 values.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use p3_field::PrimeCharacteristicRing;
use shardproof_gkr::field::{Base, Ext};
use shardproof_gkr::pcs;
use shardproof_gkr::soundness;
use shardproof_gkr::transcript::Transcript;

fn openings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pcs");
    group.sample_size(10);
    for num_vars in [10, 12, 15, 16, 17, 20, 22] {
        let values: Vec<Base> =
            (0..1u64 << num_vars).map(|i| Base::from_u64(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1)).collect();
        let point: Vec<Ext> = (0..num_vars).map(|i| Ext::from_u64(i + 2)).collect();
        let committed = pcs::commit(values.clone()).expect("the size is supported");
        let transcript = Transcript::new(b"bench");
        let value = committed.evaluate(&point).expect("the point fits");
        let opening = pcs::open(&committed, &point, &mut transcript.clone()).expect("the point fits");
        pcs::verify(committed.commitment(), &point, value, &opening, &mut transcript.clone())
            .expect("an honest opening");
        let parameters = pcs::Parameters::for_size(committed.commitment().num_vars).expect("the size is supported");
        let bits = soundness::opening(&parameters).total_bits();
        eprintln!("2^{num_vars}: {} bytes, {bits:.2} bits", opening.as_bytes().len());
        group.bench_with_input(BenchmarkId::new("commit", num_vars), &values, |bencher, values| {
            bencher.iter_with_large_drop(|| pcs::commit(values.clone()));
        });
        group.bench_with_input(BenchmarkId::new("open", num_vars), &point, |bencher, point| {
            bencher.iter(|| black_box(pcs::open(&committed, point, &mut transcript.clone())));
        });
        group.bench_with_input(BenchmarkId::new("verify", num_vars), &point, |bencher, point| {
            bencher.iter(|| pcs::verify(committed.commitment(), point, value, &opening, &mut transcript.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, openings);
criterion_main!(benches);
