import './base.css';
import './controls.css';
import './run.css';
import './why.css';
import './tables.css';
import './charts.css';
import './log.css';
