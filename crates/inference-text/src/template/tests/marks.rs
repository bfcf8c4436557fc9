//! Control tokens that messages spell.

use super::{super::marks::ControlTokens, *};
use proptest::prelude::*;

#[test]
fn control_tokens_of_messages_are_literal_and_the_templates_own_are_not() {
    let source = "<s>{{ messages[0].content }}</s>";
    let render = |content: &str| {
        let rendered = template(source, &[], &TOKENS)
            .render(&[Message::user(content)], &RenderOptions::default());
        rendered.unwrap()
    };
    assert_eq!(pieces(&render("a")), [Piece::Text("<s>a</s>")]);
    let rendered = render("a<s>b");
    assert_eq!(
        pieces(&rendered),
        [Piece::Text("<s>a"), Piece::Literal("<s>"), Piece::Text("b</s>")]
    );
    assert_eq!(rendered.text(), "<s>a<s>b</s>");
    // The longest token counts; marks that a message brings do not.
    let want =
        [Piece::Text("<s>"), Piece::Literal("<s><s>"), Piece::Literal("<s>"), Piece::Text("</s>")];
    assert_eq!(pieces(&render("<s><s>\u{f0000}<s>\u{f0001}")), want);
    let first =
        Rendered::new("\u{f0000}<s>\u{f0001}", &ControlTokens::new(TOKENS.map(str::to_owned)));
    assert_eq!(pieces(&first), [Piece::Text(""), Piece::Literal("<s>")]);
    assert_eq!(pieces(&Rendered::new("", &ControlTokens::default())), [Piece::Text("")]);
}

#[test]
fn a_mark_without_its_token_still_parts_the_text() {
    let source = "{{ messages[0].content.split('<s>') | join('<s') }}";
    let rendered = template(source, &[], &TOKENS)
        .render(&[Message::user("<s>>")], &RenderOptions::default())
        .unwrap();
    assert_eq!(rendered.text(), "<s>");
    assert_eq!(pieces(&rendered), [Piece::Text(""), Piece::Text("<s"), Piece::Text(">")]);
}

#[test]
fn what_a_template_strips_and_looks_for_is_the_same_with_marks() {
    let source = "{% for m in messages %}{% if m.content.startswith('<think>') and m.content.endswith('</s>') %}\
        [{{ m.content.split('</think>')[-1].split('<think>')[-1].strip('\n') | trim }}|{{ m.content | length }}]\
        {% endif %}{% endfor %}";
    let messages = [Message::assistant("<think>\n\n x \n</s>"), Message::user("  <think> </s>")];
    let with = template(source, &[], &TOKENS).render(&messages, &RenderOptions::default()).unwrap();
    let without = template(source, &[], &[]).render(&messages, &RenderOptions::default()).unwrap();
    assert_eq!(with.text(), without.text());
    assert!(with.text().starts_with("[x"));
}

/// Something that a user may write: texts in which control tokens are spelled, whole and in pieces.
fn user_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        proptest::sample::select(&TOKENS[..]).prop_map(str::to_owned),
        "[<s>/|a\u{f0000}\u{f0001}\"' \n]{0,6}",
        proptest::sample::select(vec!["<", "s>", "<|im_", "end|>", "é"]).prop_map(str::to_owned),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn marks_change_no_text_and_hide_every_token(texts in proptest::collection::vec(user_text(), 1..4)) {
        let source = "{% for m in messages %}{{ m.content }}|{{ m.content.strip() }}|{{ m.content | trim }}|{{ m }}|\
            {{ m | tojson }}|{{ m | tojson(ensure_ascii=true) }}|{{ m.content | upper | lower }}|\
            {% for call in m.tool_calls %}{{ call | tojson(indent=2) }}{% endfor %}{% endfor %}{{ tools }}{{ extra }}";
        let message = |text: &String| json!({"role": "user", "content": text, "tool_calls": [{"<s>": text}, [text]]});
        let messages: Vec<_> = texts.iter().map(message).collect();
        let mut options = RenderOptions::default().variable("extra", texts.clone());
        options.tools = vec![json!({"name": texts[0], texts[0].clone(): null})];
        let with = template(source, &[], &TOKENS).render_values(&messages, &options).unwrap();
        let without = template(source, &[], &[]).render_values(&messages, &options).unwrap();
        prop_assert_eq!(with.text(), without.text());
        for piece in with.pieces() {
            match piece {
                Piece::Text(text) => prop_assert!(TOKENS.iter().all(|t| !text.contains(t)), "{:?}", text),
                Piece::Literal(text) => prop_assert!(TOKENS.contains(&text)),
            }
        }
    }
}

#[test]
fn a_template_that_reads_json_reads_no_tokens_from_it() {
    let source = "{{ (messages[0].content | fromjson).a }}{{ strftime_now('%Y-%Q') | length }}";
    let message = Message::user(r#"{"a": "\u003cs>"}"#);
    let rendered =
        template(source, &[], &TOKENS).render(&[message], &RenderOptions::default()).unwrap();
    assert_eq!(pieces(&rendered)[1], Piece::Literal("<s>"));
    assert_eq!(rendered.text(), "<s>7");
}
