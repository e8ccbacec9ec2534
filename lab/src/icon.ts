/** The icon of the panel, the toolbar button and the tabs: work that goes on behind the page. */

import { LabIcon } from '@jupyterlab/ui-components';

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 16 16">
  <g class="jp-icon3" fill="none" stroke="#616161" stroke-width="1.3" stroke-linecap="round" stroke-linejoin="round" fill-opacity="0">
    <path d="M13.9 8A5.9 5.9 0 1 1 8 2.1"/>
    <path d="M11.2 2.4h2.6V5M13.6 2.6 9.9 6.3"/>
    <path class="jp-icon3" fill="#616161" fill-opacity="1" stroke="none" d="M6.2 5.9v4.3l3.5-2.15z"/>
  </g>
</svg>`;

export const runIcon = new LabIcon({ name: 'atelier:run', svgstr: SVG });
