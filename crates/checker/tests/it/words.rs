//! A verdict can be understood by somebody who was not there.

use checker::file::History;

fn verdict(text: &str) -> String {
    History::parse(text).unwrap().verdict().to_string()
}

#[test]
fn a_lost_update_is_told() {
    let text = r#"{"append":{"level":"repeatable-read","real_time":true}}
{"client":1,"from":1000,"is":"ok","until":9000,"do":[{"read":["x",[]]},{"append":["x",1]}]}
{"client":2,"from":2000,"is":"ok","until":8000,"do":[{"read":["x",[]]},{"append":["x",2]}]}
{"client":3,"from":9500,"is":"ok","until":9900,"do":[{"read":["x",[1,2]]}]}
"#;
    assert_eq!(verdict(text), include_str!("words/lost_update.txt").trim_end());
}

#[test]
fn a_stale_register_is_told() {
    let text = r#"{"register":{}}
{"client":1,"from":1000,"is":"ok","until":2000,"do":{"key":"leader","what":{"write":1}}}
{"client":1,"from":3000,"is":"ok","until":4000,"do":{"key":"leader","what":{"swap":{"from":1,"to":2,"done":true}}}}
{"client":3,"from":4500,"is":"unknown","do":{"key":"leader","what":{"write":3}}}
{"client":2,"from":5000,"is":"ok","until":6000,"do":{"key":"leader","what":{"read":{"value":3}}}}
{"client":2,"from":7000,"is":"ok","until":8000,"do":{"key":"leader","what":{"read":{"value":1}}}}
"#;
    assert_eq!(verdict(text), include_str!("words/stale_register.txt").trim_end());
}

#[test]
fn money_out_of_nowhere_is_told() {
    let text = r#"{"bank":{"accounts":{"1":100,"2":100}}}
{"client":1,"from":1000,"is":"ok","until":1900,"do":{"transfer":{"from":1,"to":2,"amount":5}}}
{"client":2,"from":1200,"is":"unknown","do":{"transfer":{"from":2,"to":1,"amount":7}}}
{"client":1,"from":2000,"is":"ok","until":2400,"do":{"read":{"1":95,"2":106}}}
{"client":1,"from":3000,"is":"ok","until":3400,"do":{"read":{"1":101,"2":99}}}
"#;
    assert_eq!(verdict(text), include_str!("words/bank.txt").trim_end());
}
