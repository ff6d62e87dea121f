// The SQL editor of the pages: CodeMirror 6 with the grammar and the parts that they use. It stands in a shadow root, where
// CodeMirror makes its styles as objects: the pages' Content-Security-Policy forbids style elements.
import {autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap} from '@codemirror/autocomplete';
import {defaultKeymap, history, historyKeymap} from '@codemirror/commands';
import {PostgreSQL, SQLDialect, sql} from '@codemirror/lang-sql';
import {HighlightStyle, bracketMatching, syntaxHighlighting} from '@codemirror/language';
import {EditorState, Prec} from '@codemirror/state';
import {EditorView, drawSelection, highlightActiveLine, keymap, lineNumbers, placeholder} from '@codemirror/view';
import {tags} from '@lezer/highlight';

// DuckDB's words beside PostgreSQL's.
const dialect = SQLDialect.define({
  ...PostgreSQL.spec,
  keywords: PostgreSQL.spec.keywords + ' anti asof describe exclude pivot positional qualify replace semi summarize unpivot version',
});

const theme = EditorView.theme({
  '&': {color: 'var(--ink)', backgroundColor: 'var(--ground)', fontSize: '14px', border: '1px solid var(--faint)', borderRadius: '6px'},
  '&.cm-focused': {outline: '3px solid var(--water)', outlineOffset: '1px'},
  '.cm-content, .cm-gutters': {fontFamily: 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace'},
  '.cm-scroller': {minHeight: '7rem', maxHeight: '40vh', overflow: 'auto', lineHeight: '1.5'},
  '.cm-content': {caretColor: 'var(--ink)'},
  '.cm-cursor': {borderLeftColor: 'var(--ink)'},
  '.cm-gutters': {backgroundColor: 'transparent', color: 'var(--faint)', border: 'none'},
  '.cm-activeLine': {backgroundColor: 'transparent'},
  '.cm-placeholder': {color: 'var(--faint)'},
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': {backgroundColor: 'var(--water-ground)'},
  '.cm-matchingBracket, &.cm-focused .cm-matchingBracket': {backgroundColor: 'var(--water-ground)'},
  '.cm-tooltip': {backgroundColor: 'var(--sheet)', color: 'var(--ink)', border: '1px solid var(--line)', borderRadius: '6px'},
  '.cm-tooltip.cm-tooltip-autocomplete > ul > li': {padding: '.15rem .5rem'},
  '.cm-tooltip.cm-tooltip-autocomplete > ul > li[aria-selected]': {backgroundColor: 'var(--water-ground)', color: 'var(--water)'},
  '.cm-completionDetail': {color: 'var(--faint)', fontStyle: 'normal'},
});

const colours = HighlightStyle.define([
  {tag: [tags.keyword, tags.operatorKeyword], color: 'var(--water)', fontWeight: '600'},
  {tag: [tags.string, tags.special(tags.string)], color: 'var(--good)'},
  {tag: [tags.number, tags.bool, tags.null], color: 'var(--warn)'},
  {tag: tags.comment, color: 'var(--faint)', fontStyle: 'italic'},
]);

// create puts an editor into an element. schema is {table: [{label, type, detail}]}; run is called on Ctrl-Enter, change
// whenever the text differs.
export function create(host, {doc, schema, run, change}) {
  const root = host.attachShadow({mode: 'open'});
  const parent = document.createElement('div');
  root.append(parent);
  const view = new EditorView({
    root, parent,
    state: EditorState.create({doc, extensions: [
      Prec.highest(keymap.of([{key: 'Mod-Enter', run: () => { run(); return true; }}])),
      lineNumbers(), history(), drawSelection(), bracketMatching(), closeBrackets(), highlightActiveLine(),
      autocompletion({icons: false}),
      keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, ...completionKeymap]),
      sql({dialect, schema, upperCaseKeywords: true}),
      syntaxHighlighting(colours), theme, EditorView.lineWrapping,
      placeholder('SELECT …'),
      EditorView.contentAttributes.of({'aria-label': 'SQL statement', 'aria-multiline': 'true', autocapitalize: 'off', spellcheck: 'false'}),
      EditorView.updateListener.of(u => { if (u.docChanged) change(); }),
    ]}),
  });
  return {
    text: () => view.state.doc.toString(),
    set: text => view.dispatch({changes: {from: 0, to: view.state.doc.length, insert: text}}),
    focus: () => view.focus(),
    destroy: () => view.destroy(),
  };
}
