//! Rows of every shape, and what is said about those of none.

use serde_json::json;

use super::*;

fn read(setting: &[(&str, &str)], row: &Value) -> Result<String, String> {
    let setting = setting.iter().map(|(part, column)| ((*part).into(), (*column).into()));
    let columns = Columns::new(&setting.collect(), false).map_err(|err| err.to_string())?;
    turns_of(&columns, row)
}

fn turns_of(columns: &Columns, row: &Value) -> Result<String, String> {
    let conversation = columns.conversation(row.as_object().unwrap());
    let messages = conversation.map_err(|err| err.to_string())?.messages();
    let turns = messages.iter().map(|turn| format!("{}: {:?}", turn.role, turn.content));
    Ok(turns.collect::<Vec<_>>().join(" | "))
}

#[track_caller]
fn check(row: &Value, expected: &str) {
    assert_eq!(read(&[], row).as_deref(), Ok(expected));
}

#[track_caller]
fn check_problem(row: &Value, expected: &str) {
    assert_eq!(read(&[], row).unwrap_err(), expected);
}

const TWO_TURNS: &str = r#"user: "2+2?" | assistant: "4""#;

#[test]
fn every_shape_gives_the_same_conversation() {
    let user = json!({ "role": "user", "content": "2+2?" });
    let assistant = json!({ "role": "assistant", "content": "4" });
    check(&json!({ "id": 7, "messages": [user, assistant] }), TWO_TURNS);
    check(&json!({ "conversations": [user, assistant] }), TWO_TURNS);
    let (human, gpt) =
        (json!({ "from": "human", "value": "2+2?" }), json!({ "from": "gpt", "value": "4" }));
    check(&json!({ "conversations": [human, gpt] }), TWO_TURNS);
    check(&json!({ "prompt": "2+2?", "completion": "4" }), TWO_TURNS);
    check(&json!({ "prompt": "2+2?", "response": "4" }), TWO_TURNS);
    check(&json!({ "prompt": [user], "completion": [assistant] }), TWO_TURNS);
    check(&json!({ "instruction": "2+2?", "output": "4" }), TWO_TURNS);
    check(&json!({ "instruction": "2+2?", "input": " ", "output": "4" }), TWO_TURNS);
    let parts = json!([{ "type": "text", "text": "2+" }, { "type": "text", "text": "2?" }]);
    let user = json!({ "role": "user", "content": parts });
    check(&json!({ "messages": [user, assistant] }), TWO_TURNS);
}

#[test]
fn an_alpaca_input_follows_the_instruction_after_an_empty_line() {
    check(
        &json!({ "instruction": "Add.", "input": "2, 2", "output": "4" }),
        r#"user: "Add.\n\n2, 2" | assistant: "4""#,
    );
}

#[test]
fn a_system_column_comes_first_unless_there_is_a_system_turn() {
    check(
        &json!({ "system": "Be brief.", "prompt": "2+2?", "completion": "4" }),
        r#"system: "Be brief." | user: "2+2?" | assistant: "4""#,
    );
    let turn = json!({ "role": "system", "content": "Sing." });
    check(&json!({ "system": "Be brief.", "messages": [turn] }), r#"system: "Sing.""#);
    check(&json!({ "system": "", "prompt": "2+2?", "completion": "4" }), TWO_TURNS);
}

#[test]
fn named_columns_win_over_recognized_ones() {
    let row = json!({ "messages": [], "q": "2+2?", "a": "4", "sys": "Hm.", "task": 3 });
    let setting = [("prompt", "q"), ("completion", "a")];
    assert_eq!(read(&setting, &row).as_deref(), Ok(TWO_TURNS));
    let columns =
        Columns::new(&BTreeMap::from([("subtask".into(), "task".into())]), false).unwrap();
    assert_eq!(columns.subtask(row.as_object().unwrap()), Ok(Some("3".to_owned())));
    assert_eq!(
        read(&[("prompt", "q"), ("completion", "answer")], &row).unwrap_err(),
        "no column `answer` among `messages`, `q`, `a`, `sys`, `task`"
    );
}

#[test]
fn a_mapping_of_unknown_or_half_a_conversation_is_an_error() {
    let row = json!({});
    insta::assert_snapshot!(
        read(&[("answer", "a")], &row).unwrap_err(),
        @"invalid `columns`: `answer` is none of `messages`, `system`, `prompt`, `completion`, `subtask`"
    );
    insta::assert_snapshot!(
        read(&[("prompt", "q")], &row).unwrap_err(),
        @"invalid `columns`: name either `messages`, or both `prompt` and `completion`"
    );
}

#[test]
fn a_row_without_a_conversation_says_what_it_has() {
    check_problem(
        &json!({ "question": "2+2?", "answer": 4 }),
        "no conversation in the columns `question`, `answer`; expected `messages`, \
         `conversations`, `instruction` and `output`, or `prompt` and `completion` or \
         `response`",
    );
    check_problem(&json!({ "messages": "hi" }), "column `messages` is text, not a list of turns");
    check_problem(&json!({ "messages": [] }), "the conversation has no turn");
    check_problem(
        &json!({ "messages": [3] }),
        "turn 1 of column `messages` is a number, not an object",
    );
    check_problem(
        &json!({ "messages": [{ "content": "hi" }] }),
        "turn 1 of column `messages` has neither a `role` nor a `from`",
    );
    check_problem(
        &json!({ "messages": [{ "role": "assistant", "content": null }] }),
        "turn 1 of column `messages` has no content",
    );
    check_problem(
        &json!({ "messages": [{ "role": "user", "content": [{ "type": "image" }] }] }),
        "turn 1 of column `messages` has content that is not text",
    );
    check_problem(
        &json!({ "conversations": [{ "from": "narrator", "value": "hi" }] }),
        "turn 1 of column `conversations` is from `narrator`, which is no known role",
    );
    check_problem(
        &json!({ "prompt": 4, "completion": "5" }),
        "column `prompt` is a number, not text",
    );
}

#[test]
fn a_subtask_is_text_or_a_number() {
    let subtask = |row: Value| Columns::default().subtask(row.as_object().unwrap());
    assert_eq!(subtask(json!({ "subtask": "algebra" })), Ok(Some("algebra".to_owned())));
    assert_eq!(subtask(json!({ "subtask": null })), Ok(None));
    assert_eq!(subtask(json!({})), Ok(None));
    assert!(subtask(json!({ "subtask": ["a"] })).is_err());
    assert!(subtask(json!({ "subtask": " " })).is_err());
}

#[test]
fn plain_text_is_read_where_no_template_is_used() {
    let row = json!({ "text": "Once upon a time" });
    let plain = Columns::new(&BTreeMap::new(), true).unwrap();
    assert_eq!(turns_of(&plain, &row).as_deref(), Ok(r#"assistant: "Once upon a time""#));
    check_problem(
        &row,
        "column `text` is no conversation; plain text is read with `chat-template = \"none\"`",
    );
}

#[test]
fn tools_and_what_else_a_turn_has_go_to_the_template() {
    let call = json!({ "function": { "name": "add", "arguments": { "a": 2 } } });
    let turn = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
    let tools = json!([{ "type": "function" }]);
    let rows = [
        json!({ "messages": [turn], "tools": tools, "chat_template_kwargs": { "deep": true } }),
        json!({ "messages": [turn], "tools": tools.to_string(), "chat_template_kwargs": r#"{"deep": true}"# }),
    ];
    for row in rows {
        let conversation = Columns::default().conversation(row.as_object().unwrap()).unwrap();
        assert_eq!(conversation.turns[0].fields()["tool_calls"], json!([call]));
        assert_eq!(Value::Object(conversation.variables), json!({ "deep": true, "tools": tools }));
    }
    let turns = json!([{ "from": "human", "value": "hi", "name": "Ann" }]);
    let row = json!({ "conversations": turns, "tools": "" });
    let conversation = Columns::default().conversation(row.as_object().unwrap()).unwrap();
    assert!(conversation.variables.is_empty());
    let fields = Value::Object(conversation.turns[0].fields().clone());
    assert_eq!(fields, json!({ "role": "user", "content": "hi", "name": "Ann" }));
    check_problem(
        &json!({ "prompt": "2+2?", "completion": "4", "tools": "hammer" }),
        "column `tools` is no json: expected value at line 1 column 1",
    );
    check_problem(
        &json!({ "prompt": "2+2?", "completion": "4", "tools": { "name": "add" } }),
        "column `tools` is an object, not a list",
    );
}
