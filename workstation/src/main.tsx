import { render } from 'preact';
import { App } from './app.tsx';
import './styles/base.css';
import './styles/worklist.css';
import './styles/viewer.css';
import './styles/report.css';
import './styles/operations.css';
import './styles/print.css';

render(<App />, document.getElementById('app') as HTMLElement);
