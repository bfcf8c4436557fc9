//! Hostile templates, and those that only look like it.

use super::*;

#[test]
fn a_hostile_template_ends_in_an_error() {
    let doubled = |n: usize| "{% set x = x ~ x %}".repeat(n);
    let lists = |n: usize| "{% set x = [x, x] %}".repeat(n);
    let sources = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}".to_owned(),
        "{{ 'a' * 10**9 }}".to_owned(),
        "{{ 'a' * 10**20 }}".to_owned(),
        "{% set x = 'a' * 1000 %}".to_owned() + &doubled(60),
        "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".to_owned(),
        "{% set x = [1] %}".to_owned() + &lists(60) + "{{ x }}",
        "{% set x = ['a' * 100000] * 10000 %}{{ x ~ '' }}".to_owned(),
        "{{ (['a' * 100000] * 10000) | tojson }}".to_owned(),
        "{{ ['a' * 100000] * 10000 }}".to_owned(),
        "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}".to_owned(),
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}".to_owned(),
        "{{ ('b' * 100000).join('a' * 100000) }}".to_owned(),
        "{{ ('a' * 100000) | join('b' * 100000) }}".to_owned(),
        "{{ 'a' | indent(10**12, true) }}".to_owned(),
        "{{ ('a\n' * 100000) | indent('b' * 100000) }}".to_owned(),
        "{{ 'a'.center(10**12) }}".to_owned(),
        "{{ 'a' | center(10**12) }}".to_owned(),
        "{{ '{:1000000000000}'.format('a') }}".to_owned(),
        "{{ '%1000000000000d' % 1 }}".to_owned(),
        "{{ '%1000000000000d' | format(1) }}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% for a in [1] recursive %}{{ loop([a]) }}{% endfor %}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns ~ '' }}".to_owned(),
        "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = [b] %}{{ a ~ '' }}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x | default(ns, true) %}{% endset %}{{ ns ~ '' }}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for a in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[[1]]) %}{% for a in range(99999) %}{% set ns.x = [ns.x[0][:], 1] %}{% endfor %}{{ [[[]]] * 10**9 }}".to_owned(),
        "{% set x = [] %}".to_owned() + &"{% set x = [x] %}".repeat(30_000),
        format!("{{{{ 1{} }}}}", " + 1".repeat(200_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(9_000), "]".repeat(9_000)),
        format!("{}x{}", "{% if true %}".repeat(9_000), "{% endif %}".repeat(9_000)),
        "{{ strftime_now('%c' * 10**6) }}".to_owned(),
        "{{ ('{0}' * 1000000).format('a' * 1000000) }}".to_owned(),
        "{{ ('a\n' * 10**7).splitlines() }}".to_owned(),
        "{{ ('a ' * 10**7).split() }}".to_owned(),
    ];
    for source in sources {
        let got = render(&source);
        let start: String = source.chars().take(120).collect();
        assert!(got.is_err(), "{start} gave {} bytes", got.unwrap().len());
    }
}

#[test]
fn what_a_template_can_nest_fits_on_the_stack() {
    let sources = [
        format!("{{{{ 1{} }}}}", "+1".repeat(8_000)),
        format!("{{{{ z{} }}}}", "~z".repeat(8_000)),
        format!("{{% if z %}}{}{{% endif %}}", "{%elif z%}".repeat(90_000)),
        format!("{{% if z %}}{}{{% endif %}}", "{%elif z%}".repeat(2_000)),
        format!("{{{{ z{} }}}}", ".z".repeat(8_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(16_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(4_000)),
        format!("{{{{ [1]{} }}}}", "[:]".repeat(8)),
        format!("{{{{ [1]{} ~ '' }}}}", "|batch(1)".repeat(199)),
        format!("{{{{ [1]{} == [1]{} }}}}", "|batch(1)".repeat(99), "|batch(1)".repeat(99)),
        format!("{{% set x = [1]{} %}}", "|batch(1)".repeat(199)),
        format!(
            "{{% macro m(x) %}}{{{{ m(x{}) }}}}{{% endmacro %}}{{{{ m([1]) }}}}",
            "[:]".repeat(8)
        ),
        format!(
            "{{% for a in [1] recursive %}}{{{{ loop([a{}]) }}}}{{% endfor %}}",
            "|batch(1)".repeat(190)
        ),
        format!(
            "{{% for a in [1] recursive %}}{{{{ loop([a{}]) }}}}{{% endfor %}}",
            "|list|reverse".repeat(190)
        ),
        format!(
            "{{% for a in [[1]] recursive %}}{{{{ loop([a{}]) }}}}{{% endfor %}}",
            "[:]".repeat(8)
        ),
        format!(
            "{{% for a in [[1]] recursive %}}{{{{ loop([{}a{}]) }}}}{{% endfor %}}",
            "[".repeat(100),
            "]".repeat(100)
        ),
        format!("{{{{ x{} }}}}", " if y else z".repeat(1_200)),
    ];
    for source in sources {
        // Whether it renders is no matter; that it returns is.
        let _rendered = render(&source);
    }
    assert_eq!(render(&"{% set x = 1 %}{{ x }}".repeat(20_000)).unwrap().len(), 20_000);
}

#[test]
fn a_deep_schema_is_within_the_limits() {
    let walk = "{% macro walk(x) %}{% if x is mapping %}{% for k, v in x.items() %}{% if k %}\
        {{ k }}:{{ walk(v) }};{% endif %}{% endfor %}{% else %}{{ x }}{% endif %}{% endmacro %}{{ walk(schema) }}";
    let schema = (0..30).fold(json!(1), |inner, _| json!({"properties": inner}));
    let options = RenderOptions::default().variable("schema", schema);
    let rendered = template(walk, &[], &[]).render(&[Message::user("hi")], &options);
    assert_eq!(rendered.unwrap().text(), "properties:".repeat(30) + "1" + &";".repeat(30));
}

#[test]
fn a_long_chat_is_within_the_limits() {
    let dir = fixtures().join("qwen3");
    let tokenizer = Tokenizer::open(&dir).unwrap();
    let template = ChatTemplate::open(&dir, &tokenizer).unwrap().unwrap();
    let text = "What colour is the sky? <|im_end|> ".repeat(30);
    let turns = (0..1000)
        .map(|i| if i % 2 == 0 { Message::user(&text) } else { Message::assistant(&text) });
    let rendered = template.render(&turns.collect::<Vec<_>>(), &RenderOptions::default()).unwrap();
    assert!(rendered.text().len() > 1_000_000);
}
