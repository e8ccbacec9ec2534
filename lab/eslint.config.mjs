import js from '@eslint/js';
import jupyter from '@jupyter/eslint-plugin';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['dist', 'lib', 'node_modules'] },
  { plugins: { jupyter } },
  js.configs.recommended,
  tseslint.configs.recommended,
  jupyter.configs.recommended,
  {
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-restricted-syntax': [
        'error',
        {
          selector: 'MemberExpression[property.name=/^(innerHTML|outerHTML|insertAdjacentHTML)$/]',
          message: 'Text goes into the page by React or textContent only.'
        },
        {
          selector: 'JSXAttribute[name.name="dangerouslySetInnerHTML"]',
          message: 'Text goes into the page by React or textContent only.'
        }
      ],
      // the extension has no translations yet
      'jupyter/no-untranslated-string': 'off',
      // its 100 KB are all needed as soon as the page shows
      'jupyter/prefer-lazy-imports': 'off'
    }
  },
  { files: ['style/index.js'], languageOptions: { sourceType: 'module' } }
);
