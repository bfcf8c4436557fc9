//! Chat templates against the reference's renderings.

mod limits;
mod marks;

use super::{sources::sources, *};
use serde_json::{Map, json};
use std::{fs, path::PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models-fixtures")
}

fn read(file: &Path) -> Value {
    let bytes = fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_slice(&bytes).unwrap()
}

fn template(source: &str, special: &[(&str, &str)], control: &[&str]) -> ChatTemplate {
    let special = special.iter().map(|(name, token)| ((*name).to_owned(), Value::from(*token)));
    let control: Vec<_> = control.iter().map(|t| (*t).to_owned()).collect();
    let sources = BTreeMap::from([(DEFAULT.to_owned(), source.to_owned())]);
    ChatTemplate::new(sources, special.collect(), |_| control.clone(), "test.jinja")
}

/// The rendering of a chat of one message.
fn render(source: &str) -> Result<String, String> {
    let messages = [json!({"role": "user", "content": "hi"})];
    let rendered = template(source, &[], &[]).render_values(&messages, &RenderOptions::default());
    rendered.map(|r| r.text()).map_err(|e| e.to_string())
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// The options and the messages of a case of `templates.json`.
fn case(context: &Value) -> (Vec<Value>, RenderOptions) {
    let mut options = RenderOptions::default();
    let mut variables: Map<String, Value> = context.as_object().unwrap().clone();
    let messages = variables.remove("messages").unwrap();
    options.tools = list(&variables.remove("tools").unwrap());
    options.documents = list(&variables.remove("documents").unwrap());
    options.add_generation_prompt =
        variables.remove("add_generation_prompt").unwrap() == json!(true);
    options.variables = variables;
    (list(&messages), options)
}

const TOKENS: [&str; 5] = ["<s>", "</s>", "<|im_end|>", "<think>", "<s><s>"];

#[test]
fn templates_render_as_the_reference_renders_them() {
    let cases = read(&fixtures().join("templates.json"));
    let mut wrong = Vec::new();
    for entry in cases.as_array().unwrap() {
        let (messages, options) = case(&entry["context"]);
        let source = entry["template"].as_str().unwrap();
        let got = template(source, &[], &[]).render_values(&messages, &options).map(|r| r.text());
        let raised = source.contains("raise_exception");
        let fits = match (&got, entry["rendered"].as_str(), entry["error"].as_str()) {
            (Ok(got), Some(want), _) => got == want,
            (Err(Error::ChatTemplate { reason }), None, Some(want)) => !raised || reason == want,
            _ => false,
        };
        if !fits {
            wrong.push(format!("{entry:#}\n{got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(cases.as_array().unwrap().len(), 108);
}

#[test]
fn chats_of_checkpoints_render_as_the_reference_renders_them() {
    let mut checked = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.join("golden.json").exists() {
            continue;
        }
        let tokenizer = Tokenizer::open(&dir).unwrap();
        let template = ChatTemplate::open(&dir, &tokenizer).unwrap().unwrap();
        for chat in list(&read(&dir.join("golden.json"))["chats"]) {
            let name = format!("{}: {}", dir.display(), chat["name"]);
            let mut options = RenderOptions::default();
            options.add_generation_prompt = chat["add_generation_prompt"] == json!(true);
            options.continue_final_message = chat["continue_final_message"] == json!(true);
            options.tools = list(&chat["tools"]);
            options.variables = chat["variables"].as_object().cloned().unwrap_or_default();
            let got = template.render_values(&list(&chat["messages"]), &options).map(|r| r.text());
            match (got, chat["rendered"].as_str()) {
                (Ok(got), Some(want)) => assert_eq!(got, want, "{name}"),
                (Err(Error::ChatTemplate { reason }), None) => {
                    assert_eq!(Some(reason.as_str()), chat["error"].as_str(), "{name}");
                }
                (got, want) => panic!("{name}: {got:?}, not {want:?}"),
            }
            let chosen = template.choose(&options).unwrap().0;
            assert_eq!(chosen, chat["template"].as_str().unwrap_or(DEFAULT), "{name}");
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} chats");
}

#[test]
fn white_space_is_split_as_python_splits_it() {
    let cases = [
        ("' a b  c '.split()", "['a', 'b', 'c']"),
        ("' a b  c '.split(none, 1)", "['a', 'b  c ']"),
        ("' a b  c '.rsplit(none, 1)", "[' a b', 'c']"),
        ("' a b '.rsplit()", "['a', 'b']"),
        ("'  '.split()", "[]"),
        ("'a b'.split(none, 0)", "['a b']"),
    ];
    for (expression, want) in cases {
        assert_eq!(render(&format!("{{{{ {expression} }}}}")).unwrap(), want, "{expression}");
    }
}

#[test]
fn a_fault_names_the_template_and_the_line() {
    let fault = |source: &str| render(source).unwrap_err();
    assert!(fault("a\n{% if %}").starts_with("chat template: test.jinja, line 2: syntax error: "));
    assert!(
        fault("a\r\n\r{{ 1 | nothing }}")
            .starts_with("chat template: test.jinja, line 3: unknown filter")
    );
    assert!(
        fault("{% set x %}\n{{ y.z }}{% endset %}")
            .starts_with("chat template: test.jinja, line 2: undefined")
    );
    assert_eq!(
        fault("\n{% macro m() %}{{ raise_exception('no: é') }}{% endmacro %}{{ m() }}"),
        "chat template: no: é"
    );
}

fn pieces(rendered: &Rendered) -> Vec<Piece<'_>> {
    rendered.pieces().collect()
}

#[test]
fn templates_are_found_where_checkpoints_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let found = |config: Value| {
        let found = sources(dir.path(), config.as_object().unwrap())?;
        Ok::<_, Error>(
            found
                .into_iter()
                .map(|(name, s)| format!("{name}={} ({})", s.text, s.origin))
                .collect::<Vec<_>>(),
        )
    };
    let single = json!({"chat_template": "a"});
    assert!(found(json!({})).unwrap().is_empty());
    fs::write(dir.path().join("chat_template.json"), r#"{"chat_template": "old"}"#).unwrap();
    assert_eq!(found(json!({})).unwrap(), ["default=old (chat_template.json)"]);
    assert_eq!(found(single.clone()).unwrap(), ["default=a (tokenizer_config.json)"]);
    let named = json!({"chat_template": [{"name": "x", "template": "b"}, {"name": "default", "template": "c"}]});
    let want = [
        "default=c (template `default` of tokenizer_config.json)",
        "x=b (template `x` of tokenizer_config.json)",
    ];
    assert_eq!(found(named).unwrap(), want);
    for wrong in
        [json!(1), json!([1]), json!([{"name": "x"}]), json!({}), json!("x".repeat(1_100_000))]
    {
        let error = found(json!({"chat_template": wrong})).unwrap_err();
        assert!(error.to_string().contains("tokenizer_config.json: `chat_template`"), "{error}");
    }
    fs::create_dir(dir.path().join("chat_templates")).unwrap();
    fs::write(dir.path().join("chat_templates/rag.jinja"), "r").unwrap();
    fs::write(dir.path().join("chat_templates/notes.txt"), "n").unwrap();
    assert_eq!(found(single.clone()).unwrap(), ["rag=r (chat_templates/rag.jinja)"]);
    fs::write(dir.path().join("chat_template.jinja"), "d").unwrap();
    let want = ["default=d (chat_template.jinja)", "rag=r (chat_templates/rag.jinja)"];
    assert_eq!(found(single.clone()).unwrap(), want);
    fs::write(dir.path().join("chat_template.jinja"), b"\xff").unwrap();
    assert!(found(single).unwrap_err().to_string().ends_with("chat_template.jinja: not UTF-8"));
}

#[test]
fn one_of_several_templates_is_chosen_as_the_reference_chooses() {
    let named = |names: &[&str]| {
        let sources = names
            .iter()
            .map(|name| ((*name).to_owned(), format!("{name}: {{{{ tools | length if tools }}}}")));
        ChatTemplate::new(sources.collect(), BTreeMap::new(), |_| Vec::new(), "model.gguf")
    };
    let render = |template: &ChatTemplate, options: &RenderOptions| {
        template
            .render(&[Message::user("hi")], options)
            .map(|r| r.text())
            .map_err(|e| e.to_string())
    };
    let mut options = RenderOptions::default();
    let all = named(&["default", "rag", "tool_use"]);
    assert_eq!(render(&all, &options).unwrap(), "default: ");
    options.tools = vec![json!({})];
    assert_eq!(render(&all, &options).unwrap(), "tool_use: 1");
    assert_eq!(render(&named(&["default", "rag"]), &options).unwrap(), "default: 1");
    options.template = Some("rag".to_owned());
    assert_eq!(render(&all, &options).unwrap(), "rag: 1");
    options.template = Some("none".to_owned());
    let error = "chat template: no template is called `none`; there are default, rag, tool_use";
    assert_eq!(render(&all, &options).unwrap_err(), error);
}

#[test]
fn a_message_is_continued_as_the_reference_continues_it() {
    let options = RenderOptions::default().continue_final_message();
    let render = |source: &str, content: Value| {
        let messages = [
            json!({"role": "user", "content": "hi"}),
            json!({"role": "assistant", "content": content}),
        ];
        template(source, &[], &TOKENS)
            .render_values(&messages, &options)
            .map(|r| r.text())
            .map_err(|e| e.to_string())
    };
    let plain = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}";
    let trimmed = "{% for m in messages %}<s>{{ m.content | trim }}</s>{% endfor %}";
    let parts =
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}</s>{% endfor %}";
    assert_eq!(render(plain, json!("so ")).unwrap(), "<s>hi</s><s>so ");
    assert_eq!(render(trimmed, json!(" so ")).unwrap(), "<s>hi</s><s>so");
    assert_eq!(render(plain, json!("<s>")).unwrap(), "<s>hi</s><s><s>");
    assert_eq!(render(plain, json!("")).unwrap(), "<s>hi</s><s>");
    assert_eq!(
        render(parts, json!([{"text": "a"}, {"text": "b"}, {"image": 1}])).unwrap(),
        "</s>ab"
    );
    for (source, content) in
        [(plain, json!(null)), (plain, json!(1)), (parts, json!([])), ("x", json!("a"))]
    {
        assert!(render(source, content).is_err());
    }
    assert!(
        render("{{ messages[0].content }}", json!("lost"))
            .unwrap_err()
            .contains("does not show the last message")
    );
    let mut both = options.clone();
    both.add_generation_prompt = true;
    assert!(matches!(
        template(plain, &[], &[]).render(&[], &both),
        Err(Error::InvalidOption { .. })
    ));
    assert!(matches!(
        template(plain, &[], &[]).render(&[], &options),
        Err(Error::InvalidPrompt { .. })
    ));
}

#[test]
fn special_tokens_are_variables_that_others_replace() {
    let template = template(
        "{{ bos_token }}{{ eos_token }}",
        &[("bos_token", "<s>"), ("eos_token", "</s>")],
        &TOKENS,
    );
    let options = RenderOptions::default();
    let rendered = template.render(&[Message::user("hi")], &options).unwrap();
    assert_eq!(pieces(&rendered), [Piece::Text("<s></s>")]);
    let rendered =
        template.render(&[Message::user("hi")], &options.variable("eos_token", "!")).unwrap();
    assert_eq!(rendered.text(), "<s>!");
}
