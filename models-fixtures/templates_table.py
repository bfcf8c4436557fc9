"""`templates.json`: small templates, each with what the reference's jinja environment renders.

A case has a template, the values that differ from `BASE`, and `rendered` or `error`.
"""

import json

from transformers.utils.chat_template_utils import render_jinja_template

BASE = {
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "tools": None, "documents": None,
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello <b>World</b> & é 'x' \"y\"\n"},
        {"role": "assistant", "content": "  Hi  "},
        {"role": "user", "content": "Bye"},
    ],
}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "a < b & c > 'd' é 日本",
          "parameters": {"z": 1, "a": [1, 2.5, True, None], "empty": {}, "none": []}}}]
X = {"d": {"b": 1, "a": 2, "c": None}, "l": [3, 1, 2, 1], "s": "  Hello, World  ", "t": True, "f": 1.0, "n": None, "i": 7}

CASES = [
    # tojson
    ("tojson", "{{ tools | tojson }}", {"tools": TOOLS}),
    ("tojson indent 2", "{{ tools[0].function | tojson(indent=2) }}", {"tools": TOOLS}),
    ("tojson indent 4", "{% for tool in tools %}{{ tool | tojson(indent=4) }}\n{% endfor %}", {"tools": TOOLS}),
    ("tojson ensure_ascii", "{{ 'é日🎉<&>' | tojson(ensure_ascii=true) }} {{ 'é日🎉<&>' | tojson }}", {}),
    ("tojson separators", "{{ d | tojson(separators=(',', ':')) }}", X),
    ("tojson sort_keys", "{{ d | tojson(sort_keys=true) }} {{ d | tojson }}", X),
    ("tojson scalars", "{{ [1, 1.0, 0.1, 1e20, 1e-7, -3, true, none, 'a\\n\\t\\\\\"/'] | tojson }}", {}),
    ("tojson big floats", "{{ x | tojson }}", {"x": [1e16, 123456789012345680.0, 1.5e300, 0.30000000000000004, -0.0, 2**53]}),
    ("tojson control characters", "{{ x | tojson }}", {"x": "\u0000\u001f\u007f\u2028"}),
    ("tojson nested empties", "{{ x | tojson(indent=2) }}", {"x": {"a": [], "b": {}, "c": [[]], "d": [{}]}}),
    ("tojson of a string in a string", "{\"x\": {{ messages[1].content | tojson }}}", {}),
    # printing
    ("constants print as Python's", "{{ none }} {{ true }} {{ false }} {{ n }} {{ t }} {{ None }} {{ True }}", X),
    ("lists print as Python's", "{{ [1, 'a', none, true, 1.5, \"it's\", 'q\"'] }}", {}),
    ("dicts print as Python's", "{{ d }} {{ {'k': {'x': []}} }}", X),
    ("floats print", "{{ 1.0 }} {{ f }} {{ 0.1 + 0.2 }} {{ 1e20 }} {{ 1e-7 }} {{ 10 / 4 }} {{ 4 / 2 }}", X),
    ("integers", "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7 / 2 }} {{ i * 2 + 1 - 3 }}", X),
    ("undefined prints nothing", "[{{ nothing }}] [{{ messages[0].nothing }}] [{{ d.nothing }}]", X),
    ("undefined attribute of undefined", "{{ nothing.more }}", {}),
    ("comparisons", "{{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ not none }} {{ 1 < 2 < 3 }} {{ 'a' != 'a' }} {{ 3 >= 3 }}", {}),
    # strings
    ("strip", "[{{ s.strip() }}] [{{ s.lstrip() }}] [{{ s.rstrip() }}] [{{ 'xxaxx'.strip('x') }}] [{{ s | trim }}]", X),
    ("case", "{{ 'hello World'.upper() }} {{ 'HELLO'.lower() }} {{ 'hello world'.title() }} {{ 'hELLO'.capitalize() }}", {}),
    ("case filters", "{{ 'hello World' | upper }} {{ 'HELLO' | lower }} {{ 'hello world' | title }} {{ 'hELLO' | capitalize }}", {}),
    ("split", "{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a</t>b'.split('</t>')[-1] }}", {}),
    ("startswith", "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.endswith(('x', 'c')) }}", {}),
    ("replace", "{{ 'aXbX'.replace('X', '-') }} {{ 'aXbX' | replace('X', '+') }} {{ 'aXbX'.replace('X', '', 1) }}", {}),
    ("find and count", "{{ 'banana'.find('n') }} {{ 'banana'.count('a') }} {{ 'banana'.find('q') }}", {}),
    ("join method", "{{ ', '.join(['a', 'b']) }}", {}),
    ("tilde", "{{ 'a' ~ 1 ~ none ~ true ~ 1.0 }}", {}),
    ("percent", "{{ '%s is %d and %.2f' % ('x', 3, 1.5) }} {{ '%s' % 'y' }}", {}),
    ("format filter", "{{ '%s-%03d' | format('x', 7) }}", {}),
    ("string slices", "{{ 'hello'[1:3] }} {{ 'hello'[::-1] }} {{ 'hello'[-2:] }} {{ 'hello'[0] }} {{ 'hello'[-1] }}", {}),
    ("string repeat and contain", "{{ 'ab' * 3 }} {{ 'ell' in 'hello' }} {{ 'x' not in 'hello' }}", {}),
    ("isdigit", "{{ '12'.isdigit() }} {{ 'a1'.isdigit() }} {{ 'ab'.isalpha() }}", {}),
    ("user text is not template", "{{ messages[0].content }}", {"messages": [{"role": "user", "content": "{{ 1 }}{% if %}<s>"}]}),
    # lists and dicts
    ("slices", "{{ l[1:] }} {{ l[::-1] }} {{ l[:-1] }} {{ l[-1] }} {{ messages[1:] | length }}", X),
    ("list filters", "{{ l | sort }} {{ l | unique | list }} {{ l | first }} {{ l | last }} {{ l | sum }} {{ l | max }} {{ l | min }}", X),
    ("reverse", "{{ l | reverse | list }} {{ 'abc' | reverse }}", X),
    ("length", "{{ l | length }} {{ s | length }} {{ d | length }} {{ 'é🎉' | length }} {{ l | count }}", X),
    ("join filter", "{{ l | join('-') }} {{ messages | map(attribute='role') | join(', ') }}", X),
    ("list concatenation", "{{ l + [9] }} {{ [1] * 3 }}", X),
    ("items", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", X),
    ("items filter", "{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %}", X),
    ("dictsort", "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}", X),
    ("dict methods", "{{ d.get('a') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.keys() | list }} {{ d.values() | list }}", X),
    ("dict access", "{{ d['a'] }} {{ d.a }} {{ 'a' in d }} {{ 'q' in d }} {{ d | list }}", X),
    ("item before method", "{{ x['items'] }} {{ x.get('items') }}", {"x": {"items": "mine"}}),
    ("selectattr", "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}", {}),
    ("selectattr defined", "{{ messages | selectattr('tool_calls', 'defined') | list | length }}", {}),
    ("rejectattr", "{{ messages | rejectattr('role', 'in', ['user', 'system']) | list | length }}", {}),
    ("select and reject", "{{ l | select('greaterthan', 1) | list }} {{ l | reject('equalto', 1) | list }} {{ l | reject('odd') | list }}", X),
    ("map", "{{ ['a', 'b'] | map('upper') | list }} {{ [1, 2] | map('string') | join }}", {}),
    ("groupby", "{% for g in messages | groupby('role') %}{{ g.grouper }}:{{ g.list | length }} {% endfor %}", {}),
    ("batch", "{{ l | batch(3) | list }}", X),
    ("range", "{{ range(3) | list }} {{ range(1, 6, 2) | list }} {% for j in range(2) %}{{ j }}{% endfor %}", {}),
    ("conversions", "{{ '7' | int + 1 }} {{ 'x' | int }} {{ 'x' | int(3) }} {{ '1.5' | float }} {{ 7 | string ~ '!' }} {{ 3.9 | int }} {{ 'ab' | list }}", {}),
    ("numbers", "{{ -3 | abs }} {{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 5 | default(1) }}", {}),
    ("escape and safe", "{{ '<a>' | e }} {{ '<a>' | safe }} {{ '<a>' }}", {}),
    ("indent", "{{ 'a\\nb\\n\\nc' | indent(2) }}|{{ 'a\\nb' | indent(2, true) }}", {}),
    ("default", "[{{ nothing | default('x') }}] [{{ n | default('x') }}] [{{ '' | default('x', true) }}] [{{ n | default('x', true) }}]", X),
    # tests
    ("is defined", "{{ nothing is defined }} {{ s is defined }} {{ nothing is undefined }} {{ n is none }} {{ messages[0].tool_calls is defined }}", X),
    ("is type", "{{ d is mapping }} {{ l is mapping }} {{ l is sequence }} {{ s is string }} {{ l is string }} {{ s is iterable }} {{ d is iterable }} {{ i is number }} {{ i is iterable }}", X),
    ("is true", "{{ t is true }} {{ 1 is true }} {{ false is false }} {{ t is boolean }} {{ i is integer }} {{ f is float }} {{ f is integer }}", X),
    ("is number", "{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 1 is in [1, 2] }} {{ 'a' is eq 'a' }} {{ s is not none }}", X),
    ("tools none", "{% if tools %}yes{% else %}no{% endif %} {{ tools is none }} {{ tools is defined }}", {}),
    ("inline if", "{{ 'a' if add_generation_prompt else 'b' }} [{{ 'a' if false }}] {{ (n or 'z') }} {{ (1 and 2) }}", X),
    # statements
    ("loop", "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}", {}),
    ("previtem", "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}>{{ loop.nextitem.role if not loop.last }} {% endfor %}", {}),
    ("cycle and changed", "{% for j in [1, 1, 2] %}{{ loop.cycle('a', 'b') }}{{ loop.changed(j) }} {% endfor %}", {}),
    ("for else", "{% for j in [] %}x{% else %}none{% endfor %}", {}),
    ("for if", "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{% endfor %}", {}),
    ("for unpacking", "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}-{{ b }} {% endfor %}", {}),
    ("loop of a loop", "{% for a in [1, 2] %}{% set outer = loop %}{% for b in [3, 4] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}", {}),
    ("recursive loop", "{% for a in [[1, [2]], 3] recursive %}{{ loop(a) if a is not number else a }}{% endfor %}", {}),
    ("break and continue", "{% for j in range(9) %}{% if j == 2 %}{% continue %}{% endif %}{% if j == 5 %}{% break %}{% endif %}{{ j }}{% endfor %}", {}),
    ("scope of set", "{% set x = 1 %}{% for j in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}", {}),
    ("namespace", "{% set ns = namespace(x=1, seen=[]) %}{% for j in [1, 2] %}{% set ns.x = ns.x + j %}{% endfor %}{{ ns.x }} {{ ns.seen }}", {}),
    ("set block", "{% set x %}a{{ 1 + 1 }}b{% endset %}[{{ x }}]{{ x | length }}", {}),
    ("set many", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", {}),
    ("macro", "{% macro m(a, b='z') %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}", {}),
    ("nested macros", "{% macro inner(x) %}({{ x }}){% endmacro %}{% macro outer(x) %}[{{ inner(x) }}{{ inner(x + 1) }}]{% endmacro %}{{ outer(1) | upper }}", {}),
    ("recursive macro", "{% macro walk(x) %}{% if x is mapping %}{% for k, v in x.items() %}{{ k }}:{{ walk(v) }};{% endfor %}{% else %}{{ x }}{% endif %}{% endmacro %}{{ walk({'a': {'b': 1}, 'c': 2}) }}", {}),
    ("call block", "{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box('p') %}text{% endcall %}", {}),
    ("filter block", "{% filter upper %}abc {{ bos_token }}{% endfilter %}", {}),
    ("with", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}[{{ a }}]", {}),
    ("generation", "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.role }};{% endif %}{% endfor %}", {}),
    ("raise_exception", "{{ raise_exception('roles must alternate: ' ~ messages[0].role) }}", {}),
    ("raise_exception not reached", "{% if false %}{{ raise_exception('no') }}{% endif %}ok", {}),
    ("strftime_now", "{{ strftime_now('%%') }}{{ strftime_now is defined }}", {}),
    ("elif", "{% for m in messages %}{% if m.role == 'user' %}U{% elif m.role == 'system' %}S{% else %}A{% endif %}{% endfor %}", {}),
    ("raw", "{% raw %}{{ not }} {% this %}{% endraw %}", {}),
    ("comments", "a{# hidden {{ x }} #}b{#- c -#} d", {}),
    # white space
    ("trim_blocks", "{% if true %}\nline\n{% endif %}\nend\n", {}),
    ("lstrip_blocks", "a\n    {% if true %}\n    b\n    {% endif %}\n  {# gone #}\n  c {% if true %}d{% endif %}\n", {}),
    ("lstrip leaves expressions", "  {{ 1 }}\n  {{ 2 }}\n", {}),
    ("dashes", "a  \n {%- if true -%} \n b \n {%- endif %}  c  {{- ' d ' -}}  e", {}),
    ("plus", "  {%+ if true +%}\n x{% endif %}", {}),
    ("one last newline", "text\n\n", {}),
    ("escapes in strings", "{{ 'a\\nb\\tc\\\\d' }}{{ \"it's\" }}{{ 'say \\'x\\'' }}", {}),
    # messages as applications build them
    ("content parts", "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endif %}|{% endfor %}",
     {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}, {"role": "user", "content": "c"}]}),
    ("tool calls", "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% endfor %}",
     {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": "é", "y": 1.0}}}]}]}),
    ("documents", "{% for doc in documents %}{{ loop.index }}. {{ doc['title'] }}: {{ doc.text }}\n{% endfor %}",
     {"documents": [{"title": "A", "text": "b"}, {"title": "C", "text": "d"}]}),
    ("enable_thinking", "{% if enable_thinking is defined and enable_thinking is false %}off{% else %}on{% endif %}", {"enable_thinking": False}),
    ("list append", "{% set ns = namespace(l=[]) %}{% set ns.l = ns.l + [1] %}{{ ns.l }}", {}),
    ("list append is refused", "{% set l = [] %}{{ l.append(1) }}", {}),
    ("private attributes are refused", "{{ ''.__class__ }}", {}),
    ("unknown filter", "{{ 1 | no_such_filter }}", {}),
    ("syntax error", "{% if %}", {}),
    ("division by zero", "{{ 1 // 0 }}", {}),
]


def case(name, template, values):
    """The case with its context and what came of it."""
    context = BASE | values
    entry = {"name": name, "template": template, "context": context}
    arguments = {key: value for key, value in context.items() if key != "messages"}
    try:
        rendered, _ = render_jinja_template([context["messages"]], chat_template=template, **arguments)
        return entry | {"rendered": rendered[0]}
    except Exception as error:  # noqa: BLE001 - whatever jinja raises is the case's result
        return entry | {"error": str(error)}


def write(path):
    table = [case(*entry) for entry in CASES]
    assert len({entry["name"] for entry in table}) == len(table)
    path.write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
