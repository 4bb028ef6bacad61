//! What processes choose as names is shown as it is, and does nothing.

use chokepoint_analysis::names::printable;
use chokepoint_analysis::report::Format;
use pulldown_cmark::{Event, Options, Parser, Tag};

use crate::{audited, diagnosed, recording};

/// Names that would be something else than a name, in HTML, in Markdown or on a forge.
const NAMES: &[&str] = &[
    "<img src=x onerror=alert(1)>",
    "</code></pre></svg></script><script>alert(1)</script>",
    "'><script>alert(1)</script>",
    "\" onload=\"alert(1)",
    "&lt;b&gt; &#39;",
    "]]><!-- x",
    "a|b",
    "a\\|b\\",
    "`",
    "a```b",
    "``` \n# heading",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "https://evil.example/",
    "www.evil.example",
    "@everyone",
    "*b* _i_ ~~s~~ **x**",
    "# heading",
    "- item",
    "1. item",
    "+ item",
    "> quote",
    "===",
    "    code",
    "$x$",
    "<!-- -->",
    "[^1]",
    "- [ ] task",
    "red\u{1b}[31m \u{202e}backwards",
    " ",
];

/// Elements that a page has outside of its flame graphs.
const ELEMENTS: &[&str] = &[
    "!DOCTYPE",
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "h1",
    "h2",
    "h3",
    "p",
    "nav",
    "ul",
    "li",
    "a",
    "main",
    "section",
    "div",
    "strong",
    "dl",
    "dt",
    "dd",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "span",
    "code",
    "svg",
    "rect",
    "figure",
    "figcaption",
    "iframe",
    "details",
    "summary",
    "pre",
];
/// Elements of a flame graph.
const DRAWN: &[&str] =
    &["svg", "defs", "linearGradient", "stop", "style", "rect", "text", "g", "title", "!DOCTYPE", "!--"];

/// Both reports of a recording in which everything has this name.
fn reports(name: &str, format: Format) -> [String; 2] {
    let profile = recording::convoy(name, 8);
    [diagnosed(&profile, format), audited(&profile, Some(&profile), format)]
}

#[test]
fn names_are_no_elements_and_no_attributes_of_a_page() {
    for name in NAMES {
        for page in reports(name, Format::Html) {
            let (outside, pictures) = taken_apart(&page);
            for tag in tags(&outside) {
                let element = element(tag);
                assert!(ELEMENTS.contains(&element), "{name:?} became <{tag}>");
                let is_handler = |word: &str| word.starts_with("on") && word.contains('=');
                assert!(!tag.split_whitespace().any(is_handler), "{name:?} became an attribute of <{tag}>");
            }
            let escaped = escaped(&printable(name));
            assert!(outside.contains(&escaped), "{name:?} is gone");
            assert!(!pictures.is_empty());
            for picture in &pictures {
                let drawn = without_scripts(picture);
                for tag in tags(&drawn) {
                    assert!(DRAWN.contains(&element(tag)), "{name:?} became <{tag}> of a flame graph");
                    assert!(
                        !tag.contains("onerror") && (!tag.contains("onload") || tag.starts_with("svg ")),
                        "{tag}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_page_loads_nothing() {
    for page in reports("shop", Format::Html) {
        assert!(page.contains("default-src 'none'"));
        let (outside, pictures) = taken_apart(&page);
        for part in pictures.iter().chain([&outside]) {
            for loads in
                [" src=", "@import", "url(http", "<link", "<object", "<base", "fetch(", "XMLHttpRequest"]
            {
                assert!(!part.contains(loads), "{loads}");
            }
        }
        let links = tags(&outside).into_iter().filter(|tag| tag.contains("href="));
        assert!(links.clone().count() > 5 && links.into_iter().all(|tag| tag.contains("href=\"#section-")));
    }
}

#[test]
fn a_page_can_be_read_by_who_does_not_see_it() {
    for page in reports("shop", Format::Html) {
        let (outside, _) = taken_apart(&page);
        let count = |part: &str| outside.matches(part).count();
        assert_eq!((count("<h1>"), count("<html lang=\"en\">")), (1, 1));
        assert!(count("<table>") >= 5 && count("<table>") == count("<caption>"));
        assert_eq!(count("<th scope=\"col\"") + count("<th class"), count("<th ") + count("<th>"));
        assert_eq!(count("<iframe title='Flame graph: "), count("<iframe "));
        assert_eq!(count("role=\"img\" aria-label=\"Time of the threads: "), count("<svg "));
    }
}

#[test]
fn names_are_no_markup_links_or_mentions_of_markdown() {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_MATH
        | Options::ENABLE_GFM;
    let plain = reports("plain", Format::Markdown).map(|text| shape(&text, options).0);
    for name in NAMES {
        for (text, plain) in reports(name, Format::Markdown).iter().zip(&plain) {
            let (shape, names) = shape(text, options);
            // The same headings, lists, tables, rows and cells as with a harmless name.
            assert_eq!(&shape, plain, "{name:?} changed the document:\n{text}");
            // By itself, and in a cell of a table, where a bar would end it.
            let name = printable(name);
            let is_shown = |what: &str| names.iter().any(|shown| shown == what);
            assert!(name.trim().is_empty() || is_shown(&name), "{name:?} is gone:\n{text}");
            let is_audit = text.starts_with("# Audit");
            assert!(!is_audit || is_shown(&format!("{name} (7)")), "{name:?} is cut in a table:\n{text}");
        }
    }
}

/// The blocks of a text, and its code spans. Fails where there is anything inline but plain and strong text and code.
fn shape(text: &str, options: Options) -> (Vec<String>, Vec<String>) {
    let (mut shape, mut names) = (Vec::new(), Vec::new());
    let mut in_code: Option<String> = None;
    let mut in_block = false;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(Tag::Link { .. } | Tag::Image { .. } | Tag::Emphasis | Tag::Strikethrough) => {
                panic!("{event:?} at {}", &text[range]);
            }
            Event::Start(Tag::CodeBlock(_)) => {
                in_block = true;
                shape.push("code block".to_owned());
            }
            Event::End(pulldown_cmark::TagEnd::CodeBlock) => in_block = false,
            Event::Start(Tag::Strong) | Event::End(pulldown_cmark::TagEnd::Strong) => {}
            Event::Start(ref tag) => shape.push(format!("{tag:?}")),
            Event::End(_) => {}
            Event::Code(name) => names.push(name.into_string()),
            Event::InlineHtml(html) => match &*html {
                "<code>" => in_code = Some(String::new()),
                "</code>" => names.extend(in_code.take()),
                "<!-- -->" => {}
                _ => panic!("{html}"),
            },
            Event::Html(html) => {
                let known = ["<details><summary>The hottest paths</summary>\n", "</details>\n"];
                assert!(known.contains(&&*html), "{html}");
            }
            Event::Text(shown) => {
                // Forges look for these in what is plain text.
                let written = text[range].to_ascii_lowercase();
                let is_link = ["://", "www.", "@everyone"].iter().any(|link| written.contains(link));
                assert!(in_block || !is_link, "{written}");
                if let Some(code) = &mut in_code {
                    code.push_str(&shown);
                }
            }
            Event::SoftBreak | Event::HardBreak => {}
            other => panic!("{other:?} at {}", &text[range]),
        }
    }
    (shape, names)
}

/// A page without its flame graphs, and these.
fn taken_apart(page: &str) -> (String, Vec<String>) {
    let mut parts = page.split("srcdoc='");
    let mut outside = parts.next().unwrap_or_default().to_owned();
    let mut pictures = Vec::new();
    for part in parts {
        let (picture, rest) = part.split_once('\'').expect("the attribute's end");
        pictures.push(picture.replace("&#39;", "'").replace("&amp;", "&"));
        outside.push_str(rest);
    }
    (outside, pictures)
}

/// What stands between angle brackets, quotes respected.
fn tags(html: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some((_, after)) = rest.split_once('<') {
        let mut quote = None;
        let end = after.find(|letter: char| {
            match quote {
                Some(open) if open == letter => quote = None,
                None if matches!(letter, '"' | '\'') => quote = Some(letter),
                _ => {}
            }
            quote.is_none() && letter == '>'
        });
        let end = end.expect("every tag ends");
        tags.push(&after[..end]);
        rest = &after[end..];
    }
    tags
}

/// The element's name.
fn element(tag: &str) -> &str {
    if tag.starts_with("!--") {
        return "!--";
    }
    tag.trim_start_matches('/')
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '!')
        .next()
        .unwrap_or_default()
}

fn without_scripts(picture: &str) -> String {
    let mut parts = picture.split("<script");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once("</script>").expect("its end").1);
    }
    text
}

/// As in the text of a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
