use std::time::Duration;
use tunnel_model::Class;
use crate::world::{Kind, World, percentile};
const S: Duration = Duration::from_secs(1);

#[test]
#[ignore]
fn sweep() {
    for seed in 1..=12 {
        let mut world = World::seeded("3mbit,60ms,64kb", seed);
        let typing = world.open(0, Class::Interactive, Kind::Typing);
        let up = world.open(0, Class::Api, Kind::Bulk);
        let down = world.open(1, Class::Api, Kind::Bulk);
        world.run(5 * S);
        world.echoes.clear();
        let early = world.goodput(20 * S, &[(1, up), (0, down)]);
        let p_early = percentile(&world.echoes[&typing], 99);
        world.echoes.clear();
        let late = world.goodput(40 * S, &[(1, up), (0, down)]);
        let p_late = percentile(&world.echoes[&typing], 99);
        println!("SWEEP {seed} early {p_early:.1?} {:.3} {:.3} late {p_late:.1?} {:.3} {:.3}", early[0], early[1], late[0], late[1]);
    }
    for seed in 1..=4 {
        let mut world = World::seeded("3mbit,60ms", seed);
        let typing = world.open(0, Class::Interactive, Kind::Typing);
        let bulk = world.open(0, Class::Api, Kind::Bulk);
        world.run(10 * S);
        let mut line = String::new();
        for link in ["1mbit,60ms", "5mbit,60ms", "3mbit,60ms"] {
            world.set_link(link);
            line += &format!("| {link}");
            for _ in 0..5 {
                world.echoes.clear();
                let g = world.goodput(2 * S, &[(1, bulk)])[0];
                line += &format!(" {g:.2}/{:.0?}", percentile(world.echoes.get(&typing).map_or(&[][..], |e| e), 90));
            }
        }
        println!("SWEEP steps {line}");
    }
    for link in ["3mbit,800ms,64kb", "3mbit,800ms,64kb,2%", "3mbit,200ms,64kb", "500kbit,60ms", "10mbit,60ms", "50mbit,20ms,256kb", "3mbit,300ms,5%"] {
        let mut line = String::new();
        for seed in 1..=3 {
            let mut world = World::seeded(link, seed);
            let bulk = world.open(0, Class::Api, Kind::Bulk);
            world.run(12 * S);
            line += &format!(" {:.3}", world.goodput(20 * S, &[(1, bulk)])[0]);
        }
        println!("SWEEP {link}{line}");
    }
}
